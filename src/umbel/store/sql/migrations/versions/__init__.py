"""One file a step, named for its number. A step that was released does not change any more."""

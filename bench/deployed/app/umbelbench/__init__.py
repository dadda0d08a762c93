"""An app that does next to nothing, so that what is measured is the way to it and back."""

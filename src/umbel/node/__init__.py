"""The long-running program at a data owner: it asks the server for tasks, does them here, and says what leaves."""

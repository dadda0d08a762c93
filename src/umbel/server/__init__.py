"""The server: the program with the durable state, which runs the runs."""

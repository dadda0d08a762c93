"""Apps: a user's package that holds a client and a server; where it is, which one it is, and how it is set."""

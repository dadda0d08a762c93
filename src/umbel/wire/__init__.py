"""What travels between node, person and server, as bytes."""

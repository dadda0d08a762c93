"""The state machine of an exchange, the loop, and what they need from outside."""

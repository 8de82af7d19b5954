"""The loops that move a request along: each takes rows in one state, does one thing, and leaves them in the next."""

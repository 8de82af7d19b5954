"""Signers that are not a key in this process, and the spend policy in front of every key."""

"""What those who build on the oracle, and its own tests, need to test against a chain."""

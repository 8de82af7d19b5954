"""The small model on this machine, for the demo and for tests: extra `local`."""

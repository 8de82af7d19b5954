"""The gateway: an OpenAI-compatible server in front of the oracle's routes, budgets and fallbacks."""

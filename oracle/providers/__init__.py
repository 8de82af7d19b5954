"""Compute networks, one package each, behind the `Compute` and `Chat` Protocols of `oracle.core.compute`."""

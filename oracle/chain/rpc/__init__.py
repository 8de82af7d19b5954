"""JSON-RPC to a Solana cluster: one endpoint, a pool of them, and the typed client that callers hold."""

"""The JSON-RPC and WebSocket methods of a validator over the embedded chain, with Agave 2.2's errors and shapes."""

"""An embedded Solana chain for tests and the demo: LiteSVM behind the JSON-RPC and WebSocket API of a validator."""

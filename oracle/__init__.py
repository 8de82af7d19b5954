"""The inference oracle for Solana: requests on chain, answers from decentralised compute, provable results."""

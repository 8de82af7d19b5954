"""HTTP: outputs and receipts for the public, health and metrics for the operator."""

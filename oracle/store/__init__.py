"""The daemon's memory: one schema on two engines, grouped commits, leases with fencing tokens (DESIGN §5)."""

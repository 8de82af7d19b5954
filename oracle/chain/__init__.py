"""Everything that talks to a cluster: program binding, RPC pool, watcher, settlement sender."""

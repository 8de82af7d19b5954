"""Nosana: GPU jobs on strangers' hosts, bought over REST with credits. Everything in them is public on IPFS."""

"""A rented inference server: rent, wait until it serves, serve requests, give back when idle, reap strays."""

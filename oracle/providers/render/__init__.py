"""Render's compute subnet, called Dispersed: containers on rented GPUs, one for each inference."""

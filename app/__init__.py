"""Wiring: the only readers of the environment; builds the platform out of the other rooms and runs it."""

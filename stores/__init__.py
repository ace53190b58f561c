"""Adapters behind the store port: memory, SQLite, Redis. Named in app/wiring.py and nowhere else."""

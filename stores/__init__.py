"""Adapters behind the store port: memory, SQLite, DynamoDB, Redis. Named in app/wiring.py and nowhere else."""

"""Durable aggregation state: the write-back table and its changelog."""

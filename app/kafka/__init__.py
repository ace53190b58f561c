"""Kafka around a worker: how to be let in, topics and groups as they must be, what is refused at a start."""

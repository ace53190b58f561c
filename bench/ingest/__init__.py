"""Events per second: ours beside its peers, on one topic of one broker, every answer checked."""

"""Feature definitions: what users write."""

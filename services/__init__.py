"""Servers that Freshet starts beside itself, so that nothing need be installed: an in-memory broker, Redis."""

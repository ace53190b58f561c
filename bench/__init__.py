"""Measurements that are run by hand; nothing of the platform imports them."""

"""The read path: HTTP routes, feature server, tiers, health."""

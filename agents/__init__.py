"""Faust agents: dispatch, aggregate, dead letters, and the transport that carries them."""

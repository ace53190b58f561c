"""How long an event takes until it can be read over HTTP, at steady rates and in bursts."""

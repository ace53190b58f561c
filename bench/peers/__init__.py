"""Others that do what W1 asks, each with its own state: scripts for an environment of theirs, and who runs them."""

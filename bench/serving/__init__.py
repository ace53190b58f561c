"""How fast features are read, beside Feast's own server on the same rows."""

"""How rows are read: local copies, then the cache, then the record."""

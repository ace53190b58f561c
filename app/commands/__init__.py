"""Groups of commands of ``freshet``, one module each."""

"""Memory of a worker under a load that stays as it is: it must not grow with time."""

"""HTTP: routes, the front door, the page, and what is told of mistakes."""

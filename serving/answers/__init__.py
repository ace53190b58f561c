"""From a request to an answer: what is asked for, the rows of it, and the JSON."""

"""How cost grows: with events, groups of an event, keys, lengths of windows, hot keys and workers."""

"""The demo: two days of a real event log, its replay, and the oracle that checks every served value."""

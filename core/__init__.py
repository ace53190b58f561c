"""The pure heart: meanings, formats and decisions. No I/O, no clock, no client; imports nothing of ours."""

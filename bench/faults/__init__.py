"""What readers feel while something is wrong: rows that expire, a Redis that is gone, too many readers, old values."""

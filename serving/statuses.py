"""Statuses: what is said of each served value, as Feast's clients know it (SEMANTICS: Values)."""

PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"
INVALID = "INVALID"

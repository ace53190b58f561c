"""Leases: what a cache holds under a key instead of a row.

A cache that has nothing under a key may be given a row by whoever has read it in the record. In between, the row may
have been written anew, put into the cache and evicted again; then there is nothing to compare the older row with, and
it would stay. So a reader first leaves a lease under the key, and its row is taken only while that lease is there:
every write puts its row in the lease's place (PROTOCOL, section 2).

A packed row begins with a version of 8 bytes. Anything shorter is none and gives way to every row that is written:
nothing at all says that the record has no row, and up to 7 bytes are a lease.
"""

import secrets

NO_ROW = b""
"""Under a key that has no row in the record."""
TOKEN_BYTES = 7
_VERSION_BYTES = 8


def new_token() -> bytes:
    """Return what tells one lease from all others."""
    return secrets.token_bytes(TOKEN_BYTES)


def is_lease(value: bytes) -> bool:
    """Whether a cache's value is somebody's lease.

    >>> is_lease(new_token()), is_lease(NO_ROW), is_lease(bytes(8))
    (True, False, False)
    """
    return 0 < len(value) < _VERSION_BYTES

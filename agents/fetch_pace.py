"""How long the broker collects records before it answers a fetch; pure."""

_FETCH_BYTES, FETCH_WAIT_MS = 1, 10
_PACES_MS = ((32, 3), (1_000, 12))
"""How long the broker collects for the next fetch after one that brought fewer records than that: what comes meanwhile
makes one run instead of several, and a run, of which each partition has its own, costs as much as many records."""
_COLLECTED_BYTES = 1 << 20


def paced(records: int) -> tuple[int, int]:
    """Return after how many bytes and milliseconds the broker answers the fetch after one that brought so many records.

    Where nothing came, the first record is answered at once; of many, the next are there already.

    >>> [paced(records) for records in (0, 5, 500, 5_000)]
    [(1, 10), (1048576, 3), (1048576, 12), (1, 10)]
    """
    wait_ms = next((pace_ms for below, pace_ms in _PACES_MS if 0 < records < below), None)
    return (_FETCH_BYTES, FETCH_WAIT_MS) if wait_ms is None else (_COLLECTED_BYTES, wait_ms)

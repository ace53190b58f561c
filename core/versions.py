"""Versions of rows: a function of the applied prefix, never of a clock (SEMANTICS: Rows and versions of rows).

Two owners that have applied the same prefix write the same state under the same number; a publication that is
repeated keeps it. [With a wall clock instead, 360 of 4,000 simulated schedules lose events.]
"""

VERSION_BYTES = 8
OFFSET_BITS = 48
EPOCH_MAX = (1 << 16) - 1


def version(epoch: int, offset: int) -> int:
    """Return ``epoch << 48 | offset + 1``.

    Args:
        epoch: Incarnation of the repartition topic and its changelog, 0 to 65,535; raised when they are made anew.
        offset: Offset, in the repartition topic, of the last packed record that was applied to the row.

    Raises:
        ValueError: A part is out of its bounds.

    >>> version(0, 0), version(1, 4) == (1 << 48) + 5
    (1, True)
    """
    if not 0 <= epoch <= EPOCH_MAX or not 0 <= offset < (1 << OFFSET_BITS) - 1:
        raise ValueError(f"no version for epoch {epoch} and offset {offset}")
    return epoch << OFFSET_BITS | offset + 1


def version_bytes(ver: int) -> bytes:
    """Return a version as stores compare it: 8 bytes, big-endian.

    >>> version_bytes(version(0, 255)).hex()
    '0000000000000100'
    """
    return ver.to_bytes(8, "big")


def version_of(value: bytes) -> int:
    """Return the version that a packed row begins with."""
    return int.from_bytes(value[:8], "big")


def position_of(ver: int) -> tuple[int, int]:
    """Return the epoch and the offset of a version; the inverse of ``version``.

    >>> position_of(version(3, 41))
    (3, 41)
    """
    return ver >> OFFSET_BITS, (ver & ((1 << OFFSET_BITS) - 1)) - 1

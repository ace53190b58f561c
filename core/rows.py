"""The packed row: one value per (group, key), the same bytes in changelog, record, Redis and memory.

Layout (format 1): the version as 8 big-endian bytes, then a msgpack array ``[format, fingerprint, as_of_ms,
valid_from_ms, valid_until_ms, expires_at_ms, event_time_ms, values, tail]``. The head, up to ``values``, answers a
read between ``valid_from_ms`` and ``valid_until_ms`` on its own; the tail, ``[[tile_ms, [[tile, state, ...], ...]],
...]``, is left raw until a later read merges it. The changelog wraps a row as ``[row, stamps]``.
"""

from typing import Any, TypeAlias

import msgspec

from core.errors import FormatError
from core.unreadable import UNREADABLE
from core.versions import VERSION_BYTES, version_bytes, version_of

ROW_FORMAT = 1
FINGERPRINT_BYTES = 8

Tile: TypeAlias = list[Any]
"""``[index, state, ...]``: one state per slot of its resolution, in the group plan's order."""

Tail: TypeAlias = list[tuple[int, list[Tile]]]
"""Per resolution its tile size in milliseconds (0 for all time) and its tiles, oldest first; empty ones left out."""

Stamps: TypeAlias = dict[str, dict[int, int]]
"""Per source, as ``<topic>@<topic id>``, and partition: the last source offset that the row has seen."""


class _Packed(msgspec.Struct, array_like=True):
    format: int
    fingerprint: bytes
    as_of_ms: int
    valid_from_ms: int
    valid_until_ms: int
    expires_at_ms: int
    event_time_ms: int
    values: list[Any]
    tail: msgspec.Raw


class _Begin(msgspec.Struct, array_like=True):
    format: int
    fingerprint: bytes


class Row(msgspec.Struct, frozen=True):
    """A row whose head is decoded and whose tail is not.

    Attributes:
        ver: Version (``core.versions``).
        fingerprint: Of the definition that the row was computed with, 8 bytes.
        as_of_ms: Newest record timestamp that the row has seen.
        valid_from_ms: Instant that ``values`` were finished for.
        valid_until_ms: First instant at which a tile enters or leaves one of the windows.
        expires_at_ms: First instant at which every window is empty, so that the row means nothing any more.
        event_time_ms: Newest event time that was applied; 0 if none was.
        values: Finished values, in the order of the features' names.
    """

    ver: int
    fingerprint: bytes
    as_of_ms: int
    valid_from_ms: int
    valid_until_ms: int
    expires_at_ms: int
    event_time_ms: int
    values: list[Any]
    tail: msgspec.Raw


_ROW_AT = {b"\x92\xc4": 3, b"\x92\xc5": 4, b"\x92\xc6": 6}
"""Where the row begins after the head of a pair and of bytes, by how many bytes tell its length."""

_encoder = msgspec.msgpack.Encoder()
_decode_row = msgspec.msgpack.Decoder(_Packed).decode
_decode_begin = msgspec.msgpack.Decoder(_Begin).decode
_decode_tail = msgspec.msgpack.Decoder(list[tuple[int, list[list[Any]]]]).decode
_decode_change = msgspec.msgpack.Decoder(tuple[bytes, dict[str, dict[int, int]]]).decode


def pack_row(
    *,
    ver: int,
    fingerprint: bytes,
    as_of_ms: int,
    valid_from_ms: int,
    valid_until_ms: int,
    expires_at_ms: int,
    event_time_ms: int,
    values: list[Any],
    tail: Tail,
) -> bytes:
    """Return the bytes of a row; the arguments are those of ``Row``.

    >>> packed = pack_row(ver=1, fingerprint=bytes(8), as_of_ms=2, valid_from_ms=2, valid_until_ms=3,
    ...                   expires_at_ms=4, event_time_ms=1, values=[7], tail=[(0, [[0, 7]])])
    >>> unpack_row(packed).values, unpack_tail(unpack_row(packed))
    ([7], [(0, [[0, 7]])])
    """
    return version_bytes(ver) + _encoder.encode(
        (
            ROW_FORMAT,
            fingerprint,
            as_of_ms,
            valid_from_ms,
            valid_until_ms,
            expires_at_ms,
            event_time_ms,
            values,
            tail,
        )
    )


def unpack_row(value: bytes) -> Row:
    """Return a row from its bytes, its tail undecoded.

    Raises:
        FormatError: The bytes are no row of a known format.
    """
    try:
        packed = _decode_row(memoryview(value)[8:])
    except UNREADABLE as error:
        raise FormatError(f"not a packed row ({len(value)} bytes): {error}") from error
    if packed.format != ROW_FORMAT:
        raise FormatError(f"row format {packed.format} is unknown, this is format {ROW_FORMAT}")
    return Row(
        version_of(value),
        packed.fingerprint,
        packed.as_of_ms,
        packed.valid_from_ms,
        packed.valid_until_ms,
        packed.expires_at_ms,
        packed.event_time_ms,
        packed.values,
        packed.tail,
    )


def fingerprint_of(value: bytes) -> bytes:
    """Return the fingerprint of the definition that a packed row was computed with; nothing else is decoded.

    Raises:
        FormatError: The bytes are no row of a known format.
    """
    try:
        begin = _decode_begin(memoryview(value)[8:])
    except UNREADABLE as error:
        raise FormatError(f"not a packed row ({len(value)} bytes): {error}") from error
    if begin.format != ROW_FORMAT:
        raise FormatError(f"row format {begin.format} is unknown, this is format {ROW_FORMAT}")
    return begin.fingerprint


def unpack_tail(row: Row) -> Tail:
    """Return a row's tiles.

    Raises:
        FormatError: The tail is not what ``pack_row`` writes.
    """
    try:
        return _decode_tail(row.tail)
    except UNREADABLE as error:
        raise FormatError(f"the tail of a row of version {row.ver} cannot be read: {error}") from error


def pack_change(row: bytes, stamps: Stamps) -> bytes:
    """Return a changelog value: the row's bytes as every store has them, and the stamps that no store needs."""
    return _encoder.encode((row, stamps))


def unpack_change(value: bytes) -> tuple[bytes, Stamps]:
    """Return the row and the stamps of a changelog value.

    Raises:
        FormatError: The bytes are no changelog value.
    """
    try:
        return _decode_change(value)
    except UNREADABLE as error:
        raise FormatError(f"not a changelog value ({len(value)} bytes): {error}") from error


def inspect_change(value: bytes) -> tuple[int, bytes]:
    """Return version and fingerprint of the row in a changelog value; all of it is looked through, nothing is built.

    Raises:
        FormatError: The bytes are no changelog value, or what is in it is no row of a known format.
    """
    row, _ = unpack_change(value)
    return version_of(row), fingerprint_of(row)


def begin_of_row(fingerprint: bytes) -> bytes:
    """Return what follows the version in every row of a definition."""
    head_bytes = 4
    return _encoder.encode((ROW_FORMAT, fingerprint, *[0] * 7))[: head_bytes + FINGERPRINT_BYTES]


def row_begins_at(change: bytes) -> int:
    """Return where the row begins in a changelog value, or 0 if it is none; the row is not looked at.

    >>> change = pack_change(b"8 bytes." + begin_of_row(b"12345678"), {})
    >>> change[row_begins_at(change) :][:8], row_begins_at(b"garbage"), row_begins_at(b"")
    (b'8 bytes.', 0, 0)
    """
    return _ROW_AT.get(change[:2], 0)


def version_of_change(change: bytes) -> int:
    """Return the version of the row in a changelog value that is known to be one."""
    at = row_begins_at(change)
    return version_of(change[at : at + VERSION_BYTES])

"""Decoded rows: the same bytes are the same row, and others are not."""

from core.ports import RowKey
from core.rows import Row, pack_row, unpack_row
from serving.tiers.decoded import DecodedRows

USER = RowKey("user#i1", "spend@v1")


def packed(ver: int, *, padding: int = 0) -> bytes:
    return pack_row(
        ver=ver, fingerprint=bytes(8), as_of_ms=1, valid_from_ms=1, valid_until_ms=2, expires_at_ms=3, event_time_ms=1,
        values=[ver, "x" * padding], tail=[],
    )  # fmt: skip


def remember(decoded: DecodedRows, key: RowKey, value: bytes) -> Row:
    row = unpack_row(value)
    decoded.put(key, value, row)
    return row


def test_bytes_that_come_again_are_the_row_that_they_were():
    """
    What was made of it is still good then.
    """
    decoded = DecodedRows()
    row = remember(decoded, USER, packed(1))

    assert decoded.get(USER, packed(1)) is row


def test_other_bytes_are_decoded_anew():
    """
    The row has changed, or is an older one again.
    """
    decoded = DecodedRows()
    remember(decoded, USER, packed(2))

    assert decoded.get(USER, packed(1)) is None
    assert decoded.get(USER, packed(3)) is None
    assert decoded.get(RowKey("user#i2", "spend@v1"), packed(2)) is None


def test_the_rows_that_came_first_go():
    """
    A row may have 300 KB, and there are millions of keys.
    """
    decoded = DecodedRows(bytes_max=10_000)
    for user in range(20):
        remember(decoded, RowKey(f"user#i{user}", "spend@v1"), packed(1, padding=1_000))
        remember(decoded, USER, packed(user + 2, padding=1_000))

    assert decoded.get(RowKey("user#i0", "spend@v1"), packed(1, padding=1_000)) is None
    assert decoded.get(USER, packed(21, padding=1_000)) is not None
    assert decoded._bytes <= 10_000
    assert decoded._bytes == sum(len(value) + 600 for value, _ in decoded._rows.values())

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import FormatError
from core.progress import progress_as_of_ms
from core.rows import fingerprint_of, pack_change, pack_row, unpack_change, unpack_row, unpack_tail

MODEST = settings(max_examples=60, derandomize=True, deadline=None)
INSTANTS = st.integers(0, 2**63 - 1)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text("a漢", max_size=3)
)
VALUES = st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3)
TILES = st.lists(st.builds(lambda index, states: [index, *states], st.integers(0, 2**40), VALUES), max_size=3)
TAILS = st.lists(st.tuples(st.integers(0, 2**40), TILES), max_size=2)

ROW_HEX = (
    "0001000000000005"  # version: epoch 1, offset 4
    "99"  # nine parts
    "01"  # format
    "c4080001020304050607"  # fingerprint
    "cf0000018bcfe56800"  # as_of_ms
    "cf0000018bcfe56800"  # valid_from_ms
    "cf0000018bcfe6ef00"  # valid_until_ms
    "cf7fffffffffffffff"  # expires_at_ms: never
    "cf0000018bcfe56417"  # event_time_ms
    "9503cb3fe0000000000000c0920702a2636f"  # values
    "929200919200ce000f4240"  # tail: all time
    "92ce000493e091" + "93ce0056776a0392" + "cb4014000000000000" + "02"
)


def row(**changes):
    parts = {
        "ver": (1 << 48) + 5,
        "fingerprint": bytes(range(8)),
        "as_of_ms": 1_700_000_000_000,
        "valid_from_ms": 1_700_000_000_000,
        "valid_until_ms": 1_700_000_100_096,
        "expires_at_ms": 2**63 - 1,
        "event_time_ms": 1_699_999_999_000 - 1,
        "values": [3, 0.5, None, [7, 2], "co"],
        "tail": [(0, [[0, 1_000_000]]), (300_000, [[5_666_666, 3, (5.0, 2)]])],
    }
    return pack_row(**(parts | changes))


def test_the_bytes_of_a_row_are_frozen():
    """
    Changelog, record, Redis and memory hold these bytes: a change of these bytes moves data.
    """
    assert row().hex() == ROW_HEX


def test_the_bytes_of_a_changelog_value_are_frozen():
    """
    A table is restored from these bytes: a change of these bytes moves data.
    """
    stamps = {"clicks@": {0: 17, 3: 70_000}, "likes@abc": {1: 0}}

    assert pack_change(b"\x01row", stamps).hex() == (
        "92c40401726f7782a7636c69636b7340820011" + "03ce00011170" + "a96c696b657340616263810100"
    )
    assert unpack_change(pack_change(b"\x01row", stamps)) == (b"\x01row", stamps)


@given(st.integers(0, 2**64 - 1), st.binary(min_size=8, max_size=8), INSTANTS, VALUES, TAILS)
@MODEST
def test_a_row_reads_back_as_it_was(ver, fingerprint, instant_ms, values, tail):
    """
    What a worker restores is what its predecessor knew.
    """
    unpacked = unpack_row(row(ver=ver, fingerprint=fingerprint, valid_until_ms=instant_ms, values=values, tail=tail))

    assert (unpacked.ver, unpacked.fingerprint, unpacked.valid_until_ms) == (ver, fingerprint, instant_ms)
    assert unpacked.values == values
    assert unpack_tail(unpacked) == tail


def test_every_shorter_piece_of_a_row_is_refused():
    """
    A value that was cut off must not be served as a shorter one.
    """
    whole = row()
    for size in range(len(whole)):
        with pytest.raises(FormatError):
            unpack_row(whole[:size])


@given(st.binary(max_size=40))
@MODEST
def test_foreign_bytes_are_refused_as_such(garbage):
    """
    Whatever lies under a key in a shared store, a read ends with an error that says what it found.
    """
    for read in (unpack_row, unpack_change):
        try:
            read(garbage)
        except FormatError as error:
            assert "bytes" in str(error)  # noqa: PT017  # most garbage is refused, some of it is a valid value


def test_an_unknown_format_is_named():
    """
    After a roll-back old workers meet newer rows; the message must say that, not "corrupt".
    """
    newer = bytes(8) + msgspec.msgpack.encode((2, bytes(8), 0, 0, 0, 0, 0, [], []))

    with pytest.raises(FormatError, match="row format 2 is unknown"):
        unpack_row(newer)


def test_a_tail_that_is_none_is_refused():
    """
    The tail is left raw until a later read: then it must not be half read.
    """
    broken = unpack_row(bytes(8) + msgspec.msgpack.encode((1, bytes(8), 0, 0, 0, 0, 0, [], {"a": 1})))

    with pytest.raises(FormatError, match="tail"):
        unpack_tail(broken)


NO_TEXT, NESTING = b"\xa1\xff", b"\x91" * 10_000


@pytest.mark.parametrize("bad", [NO_TEXT, NESTING], ids=["no UTF-8", "nesting"])
def test_bytes_at_which_the_decoder_fails_otherwise_are_refused_too(bad):
    """
    Its errors for these are Python's, not its own: a row that was damaged was an unknown error, without its place.
    Found by the fuzz.
    """
    head = bytes(8) + b"\x99\x01\xc4\x08" + bytes(8) + bytes(5)
    readers = [
        (unpack_row, head + b"\x91" + bad),
        (fingerprint_of, bytes(8) + b"\x92\x01" + bad),
        (unpack_change, b"\x92\xc4\x00\x81" + bad),
        (lambda value: unpack_tail(unpack_row(value)), head + b"\x90" + b"\x91\x92\x00\x91\x91" + bad),
        (progress_as_of_ms, bytes(8) + bad),
    ]

    for read, value in readers:
        with pytest.raises(FormatError):
            read(value)


def test_bytes_after_a_row_are_refused():
    """
    Two writes that ran into one value are no row.
    """
    with pytest.raises(FormatError):
        unpack_row(row() + b"\0")

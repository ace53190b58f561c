import msgspec
import pytest

from core.errors import FormatError, NewerFormatError
from core.packs import Pack, pack_bytes, unpack
from tests.packed import empty_pack


def a_pack() -> Pack:
    pack = empty_pack("clicks", "abc", 3, ["video_id", "(watch_ms / 1000)"])
    pack.offsets += [17, 70_000]
    pack.record_times += [1_700_000_000_000, 1_700_000_000_001]
    pack.event_times += [1_699_999_999_000, 1_700_000_000_001]
    pack.event_ids += ["e1", ""]
    pack.checks += [0, 65_535]
    pack.keys += ["i42", "sa%7Cb|i7"]
    pack.columns[0] += [9, -1]
    pack.columns[1] += [None, 0.5]
    return pack


PACK_HEX = (
    "9c"  # twelve parts
    "01"  # format
    "a6636c69636b73" + "a3616263" + "03"  # source, topic id, partition
    "92a8766964656f5f6964b128"  # names
    "77617463685f6d73202f203130303029"
    "9211ce00011170"  # offsets
    "92cf0000018bcfe56800cf0000018bcfe56801"  # record times
    "92cf0000018bcfe56418cf0000018bcfe56801"  # event times
    "92a26531a0"  # event ids
    "9200cdffff"  # checks
    "92a3693432a97361253743627c6937"  # keys
    "929209ff92c0cb3fe0000000000000"  # columns
)


def test_the_bytes_of_a_packed_record_are_frozen():
    """
    Records wait in repartition topics for days: a change of these bytes moves data.
    """
    assert pack_bytes(a_pack()).hex() == PACK_HEX


def test_a_pack_reads_back_as_it_was():
    """
    An update that changes on the way is a wrong number for good.
    """
    assert unpack(pack_bytes(a_pack())) == a_pack()
    assert a_pack().origin == "clicks@abc"


def test_every_shorter_piece_of_a_pack_is_refused():
    """
    Half a pack would be counted, and its other half never.
    """
    whole = pack_bytes(a_pack())
    for size in range(len(whole)):
        with pytest.raises(FormatError, match="not a packed record"):
            unpack(whole[:size])


@pytest.mark.parametrize(
    "value",
    [
        msgspec.msgpack.encode([2, "clicks", {"all": "different"}]),
        pack_bytes(a_pack()).replace(b"\x9c\x01", b"\x9c\x02", 1),
    ],
)
def test_a_newer_format_is_told_from_garbage(value):
    """
    Dispatchers may be newer than aggregators for a while: their packs hold events, and garbage is passed over.
    """
    with pytest.raises(NewerFormatError, match="pack format 2 of source 'clicks' is newer than 1"):
        unpack(value)


@pytest.mark.parametrize("value", [None, b"", b"<xml/>", b"\x93\x02\x02\x02", msgspec.msgpack.encode([0, "clicks"])])
def test_garbage_is_no_newer_format(value):
    """
    A stranger's record would stop the partition until somebody found a release that reads it.
    """
    with pytest.raises(FormatError) as caught:
        unpack(value)

    assert type(caught.value) is FormatError


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(pack_bytes(a_pack()).replace(b"clicks", b"click\xff"), id="no UTF-8"),
        pytest.param(b"\x9c\x01\xa0\xa0\x00\x90\x90\x90\x90\x90\x90\x90\x91" + b"\x91" * 10_000, id="nesting"),
    ],
)
def test_bytes_at_which_the_decoder_fails_otherwise_are_refused_too(value):
    """
    Its errors for these are Python's, not its own; a stranger's record with one of them ended every worker that met
    it, again after every restart. Found by the fuzz.
    """
    with pytest.raises(FormatError, match="not a packed record"):
        unpack(value)


@pytest.mark.parametrize("name", ["offsets", "record_times", "event_times", "event_ids", "checks", "keys"])
def test_lists_of_different_lengths_are_refused(name):
    """
    Columns that slipped by one give every user the numbers of another.
    """
    broken = a_pack()
    getattr(broken, name).pop()

    with pytest.raises(FormatError, match="differ in length"):
        unpack(pack_bytes(broken))


def test_columns_that_do_not_fit_their_names_are_refused():
    """
    A column without a name, or one that is too short, belongs to no expression.
    """
    for change in (lambda pack: pack.names.pop(), lambda pack: pack.columns[1].pop(), lambda pack: pack.columns.pop()):
        broken = a_pack()
        change(broken)
        with pytest.raises(FormatError, match="differ in length"):
            unpack(pack_bytes(broken))


def test_wrong_types_are_refused():
    """
    An offset that is text would be compared as text.
    """
    for value in (b"", b"\xc0", msgspec.msgpack.encode([1, "clicks"]), msgspec.msgpack.encode({"format": 1})):
        with pytest.raises(FormatError):
            unpack(value)

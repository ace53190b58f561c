import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given, settings
from hypothesis import strategies as st

from core.keys import INT64_MAX, INT64_MIN, KEY_BYTES_MAX, decode_key, encode_key, kafka_partition, partition_key

MODEST = settings(max_examples=100, derandomize=True, deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.text("i s|%#{}7C", max_size=6)
PARTS = st.lists(st.integers(INT64_MIN, INT64_MAX) | TEXT, min_size=1, max_size=3)


@given(PARTS)
@MODEST
def test_a_key_reads_back_as_it_was(parts):
    """
    Which is also why no two keys encode alike, whatever they contain.
    """
    again = decode_key(encode_key(parts))

    assert again == parts
    assert [type(part) for part in again] == [type(part) for part in parts]


@given(PARTS, PARTS)
@MODEST
def test_different_keys_encode_differently(one, other):
    """
    Two users whose keys are one would see each other's features.
    """
    assert (encode_key(one) == encode_key(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1], ["1"]),
        (["a", "b"], ["a|b"]),
        (["a|", "b"], ["a", "|b"]),
        (["a|sb"], ["a", "b"]),
        (["%7C"], ["|"]),
        (["\u00e9"], ["e\u0301"]),
        ([""], ["", ""]),
        (["i1"], [1]),
    ],
)
def test_keys_that_look_alike_differ(one, other):
    """
    Each of these was one key in some system.
    """
    assert encode_key(one) != encode_key(other)


@given(PARTS)
@MODEST
def test_an_encoded_key_has_no_character_with_a_meaning(parts):
    """
    A brace would move a row to another slot of a Redis cluster, a # would end the entity's name.
    """
    assert not set(encode_key(parts)) & set("#{} \n\r\t\0")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([True], "not bool"),
        ([None], "not NoneType"),
        ([1.0], "not float"),
        ([b"a"], "not bytes"),
        ([2**63], "fit in 64 bits"),
        ([-(2**63) - 1], "fit in 64 bits"),
        ([10**5000], "fit in 64 bits"),
        (["\ud800"], "lone surrogate"),
        (["a" * KEY_BYTES_MAX], "1025 bytes"),
        (["漢" * 342], "1027 bytes"),
        (["|" * 342], "1027 bytes"),
    ],
)
def test_what_is_no_key_says_why(parts, words):
    """
    The message goes back to a client or into a dead letter.
    """
    with pytest.raises(ValueError, match=words):
        encode_key(parts)


def test_the_longest_key_is_allowed():
    """
    The limit itself is inside.
    """
    assert len(encode_key(["a" * (KEY_BYTES_MAX - 1)])) == KEY_BYTES_MAX


@pytest.mark.parametrize(
    ("parts", "encoded"),
    [
        ([42], "i42"),
        ([-1], "i-1"),
        (["42"], "s42"),
        ([""], "s"),
        (["a|b", 7], "sa%7Cb|i7"),
        (["%#{} \x00\x7f\n"], "s%25%23%7B%7D%20%00%7F%0A"),
        (["é漢"], "sé漢"),
    ],
)
def test_encoded_keys_are_frozen(parts, encoded):
    """
    Rows are found by these texts: a change of these bytes moves data.
    """
    assert encode_key(parts) == encoded
    assert partition_key("user", encoded) == f"user#{encoded}"


@pytest.mark.parametrize(
    ("encoded", "in_8", "in_1024"),
    [
        ("i42", 6, 870),
        ("s42", 5, 589),
        ("i0", 0, 392),
        ("i-1", 1, 441),
        ("i9223372036854775807", 5, 429),
        ("sa%7Cb|i7", 4, 420),
        ("sé漢", 4, 44),
        ("s", 7, 559),
        ("s" + "x" * 100, 0, 552),
    ],
)
def test_partitions_are_those_of_kafkas_own_partitioner(encoded, in_8, in_1024):
    """
    State is keyed by the partition, and producers in other languages choose it too: a change of these numbers moves
    data. (Computed with aiokafka's murmur2.)
    """
    assert kafka_partition(encoded, 8) == in_8
    assert kafka_partition(encoded, 1024) == in_1024
    assert kafka_partition(encoded, 1) == 0


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@MODEST
def test_the_hash_of_a_key_is_aiokafkas(encoded):
    """
    Who sends through aiokafka or Kafka's own clients finds the same partition, however long the key is.
    """
    assert kafka_partition(encoded, 1 << 31) == int(murmur2(encoded.encode())) & 0x7FFFFFFF


def test_what_no_encoder_wrote_is_refused():
    """
    A row under such a key belongs to nobody.
    """
    for encoded in ("", "x1", "i42|"):
        with pytest.raises(ValueError, match="not an encoded key"):
            decode_key(encoded)

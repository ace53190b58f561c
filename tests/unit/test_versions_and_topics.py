import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.topics import DEAD_LETTERS, changelog_topic, repartition_topic, row_name
from core.versions import EPOCH_MAX, version, version_bytes, version_of

MODEST = settings(max_examples=100, derandomize=True, deadline=None)
PLACES = st.tuples(st.integers(0, EPOCH_MAX), st.integers(0, 2**48 - 2))


@pytest.mark.parametrize(
    ("epoch", "offset", "bytes_hex"),
    [
        (0, 0, "0000000000000001"),
        (0, 255, "0000000000000100"),
        (1, 4, "0001000000000005"),
        (0, 2**48 - 2, "0000ffffffffffff"),
        (EPOCH_MAX, 2**48 - 2, "ffffffffffffffff"),
    ],
)
def test_the_bytes_of_a_version_are_frozen(epoch, offset, bytes_hex):
    """
    Stores compare these bytes with those that they hold: a change of these bytes moves data.
    """
    assert version_bytes(version(epoch, offset)).hex() == bytes_hex


@given(PLACES, PLACES)
@MODEST
def test_bytes_compare_as_places_do(one, other):
    """
    A store that took an older row for a newer one would undo an update.
    """
    ones, others = version_bytes(version(*one)), version_bytes(version(*other))

    assert (ones < others) == (one < other)
    assert version_of(ones + b"the row") == version(*one)


@pytest.mark.parametrize(("epoch", "offset"), [(-1, 0), (EPOCH_MAX + 1, 0), (0, -1), (0, 2**48 - 1)])
def test_a_place_out_of_bounds_has_no_version(epoch, offset):
    """
    An offset that ran over would look like the next epoch.
    """
    with pytest.raises(ValueError, match=str(offset if epoch == 0 else epoch)):
        version(epoch, offset)


def test_no_row_has_version_zero():
    """
    Zero means that nothing was applied.
    """
    assert version(0, 0) > 0


def test_names_of_topics_and_rows_are_frozen():
    """
    A worker that looks for its table under another name begins with an empty one: a change of these names moves data.
    """
    assert repartition_topic("user_tab") == "freshet.user_tab"
    assert changelog_topic("user_tab") == "freshet.user_tab.changelog"
    assert DEAD_LETTERS == "freshet.dead-letters"
    assert row_name("user_engagement", 12) == "user_engagement@v12"

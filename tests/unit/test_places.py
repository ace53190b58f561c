"""Places: a key's partition is the same however often it is asked for."""

import pytest

from agents.places import Places, place_of

KEPT = 2_000


def test_a_key_that_was_forgotten_has_its_place_again():
    """
    Another partition than before would give a key two writers.
    """
    places = Places(8, kept=KEPT)
    keys = [*range(3 * KEPT), *range(3 * KEPT)]

    found = [places[key] for key in keys]

    assert found == [place_of(8, key) for key in keys]


def test_no_more_places_are_kept_than_are_allowed():
    """
    A source with new keys all the time would fill the memory.
    """
    places = Places(8, kept=KEPT)

    for key in range(5 * KEPT):
        places[key, "a"]

    assert 0 < len(places) <= KEPT


def test_a_number_and_its_text_are_two_keys():
    """
    One place for both would count the events of one for the other.
    """
    places = Places(8)

    assert places[1] == place_of(8, 1) != places["1"] == place_of(8, "1")


def test_a_key_of_several_parts_is_not_that_of_their_texts():
    """
    Parts that were joined before they are encoded could stand for another key.
    """
    places = Places(1)

    assert places[1, "a"] == ((0, "i1|sa"),)
    assert places["1|a"] == ((0, "s1%7Ca"),)


def test_null_is_no_key_and_is_not_remembered_as_one():
    """
    All events without a user would count for one.
    """
    places = Places(8)

    for _ in range(2):
        with pytest.raises(ValueError, match="it is null"):
            places[1, None]

    assert not places

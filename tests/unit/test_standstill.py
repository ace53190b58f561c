"""The measure of a hand-over: how long a partition with work to do stood still."""

from tests.chaos.handover import Standstill

PLACE, OTHER = ("taps", 0), ("taps", 1)


def test_only_a_partition_that_has_something_to_do_stands_still():
    """
    A topic to which nobody writes would else be the longest standstill of all.
    """
    standstill = Standstill()

    for second in range(20):
        standstill.look(float(second), {PLACE: 7, OTHER: 7}, {PLACE: 7, OTHER: 9})

    assert standstill.longest == {PLACE: 0.0, OTHER: 19.0}


def test_a_partition_that_moves_on_begins_anew():
    """
    Two hand-overs of six seconds are not one of twelve.
    """
    standstill = Standstill()

    for second, committed in enumerate((1, 1, 1, 2, 2, 2, 2, 9)):
        standstill.look(float(second), {PLACE: committed}, {PLACE: 9})

    assert standstill.longest == {PLACE: 3.0}

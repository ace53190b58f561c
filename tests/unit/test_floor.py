"""Versions below which nothing is served."""

from core.ports import RowKey
from serving.tiers.floor import VersionFloor

ROWS = [RowKey(f"user#i{number}", "spend@v1") for number in range(9)]


def test_rows_do_not_push_out_each_other_while_there_is_room():
    """
    Two hot rows with one place in a table had no floor at all, whichever was served displaced the other: of a thousand
    rows fifteen, and their readers saw time go back with every replica that was behind.
    """
    floor = VersionFloor(rows_max=8)

    for ver, key in enumerate(ROWS[:8], start=1):
        floor.put(key, ver)

    assert [floor.of(key) for key in ROWS] == [1, 2, 3, 4, 5, 6, 7, 8, 0]


def test_the_row_that_was_noted_first_makes_room():
    """
    A worker that serves millions of users remembers those of the last moments.
    """
    floor = VersionFloor(rows_max=8)
    for key in [*ROWS[:8], ROWS[0]]:
        floor.put(key, 1)

    floor.put(ROWS[8], 1)

    assert [floor.of(key) for key in ROWS] == [1, 0, 1, 1, 1, 1, 1, 1, 1]

"""For how long the broker collects what is fetched next."""

import pytest

from agents.fetch_pace import paced

AT_ONCE, COLLECTED = (1, 10), 1 << 20


@pytest.mark.parametrize(
    ("records", "asked"),
    [
        (0, AT_ONCE),
        (1, (COLLECTED, 3)),
        (31, (COLLECTED, 3)),
        (32, (COLLECTED, 12)),
        (999, (COLLECTED, 12)),
        (1_000, AT_ONCE),
        (500_000, AT_ONCE),
    ],
)
def test_the_fewer_records_come_the_sooner_the_next_are_fetched_unless_there_are_many(records, asked):
    """
    Few records cost little however they come; some are cheaper together; of many the next are there already. After
    nothing at all the first record must not wait for company.
    """
    assert paced(records) == asked

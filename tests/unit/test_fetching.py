"""How far apart fetches are."""

import pytest

from agents.owned_partitions import _apart_s


@pytest.mark.parametrize(
    ("records", "seconds"), [(0, 0), (1, 0.003), (31, 0.003), (32, 0.01), (999, 0.01), (1_000, 0), (500_000, 0)]
)
def test_the_fewer_records_come_the_sooner_the_next_are_fetched_unless_there_are_many(records, seconds):
    """
    Few records cost little however they come; some are cheaper together; of many the next are there already. Nothing at
    all was waited for in the fetch itself.
    """
    assert _apart_s(records) == seconds

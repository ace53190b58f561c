"""A short fuzz for every change; `make fuzz` is the long one."""

import pytest

from core.check import check_registry
from tests.fuzz.batches import Figures, run_batch, shrink
from tests.fuzz.domain import REGISTRY
from tests.fuzz.payloads import chances, draw_batch
from tests.fuzz.pipeline import carry

BATCHES = 20
SEED = 5


@pytest.fixture(scope="module")
def figures() -> Figures:
    """What became of 20,000 payloads."""
    found = Figures()
    for number in range(BATCHES):
        found.add(run_batch(SEED, number))
    return found


def test_no_payload_crashes_the_pipeline_or_is_lost(figures):
    """
    A payload that ends a worker ends it again after every restart; one that is in no account is somebody's lost event.
    """
    assert figures.payloads == 1_000 * BATCHES
    assert figures.crashes == []
    assert figures.unaccounted == []
    assert figures.dispatched + sum(figures.buried.values()) == figures.payloads


def test_payloads_reach_every_way_out(figures):
    """
    A fuzz of which everything is refused at the first byte would find nothing, and never say so.
    """
    assert figures.dispatched > 0.25 * figures.payloads
    assert figures.damaged > 0
    assert set(figures.buried) == {"malformed", "too_large", "overflow", "late", "future"}


def test_a_seed_gives_the_same_payloads_again():
    """
    Whoever mends what was found must see it again.
    """
    first, again, other = (draw_batch(chances(seed), 300) for seed in ("1/2", "1/2", "1/3"))

    assert first == again != other


def test_the_definitions_of_the_fuzz_are_good():
    """
    What a worker would refuse at its start cannot be met by an event.
    """
    assert [problem for problem in check_registry(REGISTRY) if problem.severity == "error"] == []


def test_what_is_found_is_told_by_few_records():
    """
    Among a thousand records nobody sees the two that matter.
    """
    records = draw_batch(chances("1/1"), 200)
    first, second = records[17], records[170]

    assert shrink(records, lambda fewer: first in fewer and second in fewer) == [first, second]


async def test_a_record_that_is_not_where_it_must_be_is_told():
    """
    An account that cannot be wrong proves nothing: here a record comes twice under one offset.
    """
    (record, *_) = draw_batch(chances("1/1"), 1)

    outcome = await carry([record, record])

    assert len(outcome.unaccounted) >= 1
    assert outcome.unaccounted[0].startswith(f"{record.topic}/{record.partition}/{record.offset}: it ")

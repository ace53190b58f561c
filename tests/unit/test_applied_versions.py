import pytest

from app.applied_versions import resolve_versions
from core.definitions import Count, FeatureGroup, Max, aggregate, col
from core.errors import ConfigurationError
from core.plans import plan_group
from core.windows import hours
from stores.memory import MemoryStore
from tests.aggregating import TAPS, USER
from tests.clock import ManualClock

ONE = aggregate("taps", TAPS, Count(), over=(hours(1),))
MORE = aggregate("latest", TAPS, Max(col("at")), over=(hours(1),))


def plan(*features):
    return plan_group(FeatureGroup("taps", entity=USER, owner="o", features=features))


@pytest.fixture
def record():
    return MemoryStore(ManualClock())


async def test_a_meaning_keeps_its_number(record):
    """
    A number that changed at a restart would lose every row of the group.
    """
    assert await resolve_versions(record, [plan(ONE)], may_apply=True) == ({"taps": 1}, ["taps"])
    assert await resolve_versions(record, [plan(ONE)], may_apply=True) == ({"taps": 1}, [])
    assert await resolve_versions(record, [plan(ONE)], may_apply=False) == ({"taps": 1}, [])


async def test_a_meaning_that_comes_back_gets_a_new_number(record):
    """
    Its old rows lack what came in between: 102 views were served of 103, and nothing said so.
    """
    for features in ((ONE,), (ONE, MORE)):
        await resolve_versions(record, [plan(*features)], may_apply=True)

    with pytest.raises(ConfigurationError, match=r"went on as version 2.* lack what came since"):
        await resolve_versions(record, [plan(ONE)], may_apply=False)
    assert await resolve_versions(record, [plan(ONE)], may_apply=True) == ({"taps": 3}, ["taps"])
    assert await resolve_versions(record, [plan(ONE)], may_apply=False) == ({"taps": 3}, [])


async def test_who_only_reads_may_go_on_with_an_older_meaning(record):
    """
    In the middle of a roll-out a serving worker of before may be started again.
    """
    for features in ((ONE,), (ONE, MORE)):
        await resolve_versions(record, [plan(*features)], may_apply=True)

    assert await resolve_versions(record, [plan(ONE)], may_apply=False, writes=False) == ({"taps": 1}, [])


async def test_a_meaning_that_was_never_applied_is_refused(record):
    """
    Whoever deploys says when a group begins anew, not whichever worker starts first.
    """
    with pytest.raises(ConfigurationError, match="never applied"):
        await resolve_versions(record, [plan(ONE)], may_apply=False, writes=False)


class Racing(MemoryStore):
    """A record to which others write between a read and the write after it."""

    def __init__(self, *others) -> None:
        super().__init__(ManualClock())
        self.others = list(others)

    async def write(self, rows, *, deadline_ms):
        if self.others:
            other = self.others.pop(0)
            await resolve_versions(self, [other], may_apply=True)
        return await super().write(rows, deadline_ms=deadline_ms)


async def test_workers_that_start_together_apply_a_meaning_once():
    """
    The second one ended, and was started again for nothing.
    """
    assert await resolve_versions(Racing(plan(ONE)), [plan(ONE)], may_apply=True) == ({"taps": 1}, [])


async def test_a_meaning_is_applied_after_another_one_that_came_between():
    """
    Whoever starts last is what runs, as if it had started a second later.
    """
    assert await resolve_versions(Racing(plan(ONE)), [plan(ONE, MORE)], may_apply=True) == ({"taps": 2}, ["taps"])

"""Answers from the cache where it has what it had before."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

from core.definitions import Registry, ServingPolicy
from core.leases import NO_ROW, new_token
from core.ports import Clock, RowKey
from core.windows import seconds
from stores.memory import MemoryStore
from tests.clock import ManualClock
from tests.entity_reads import (
    FEATURES,
    NOW_MS,
    ROW,
    answer,
    assert_equal,
    plain_server,
    request,
    some_request,
    something_happens,
)
from tests.fakes import idle
from tests.serving_kit import USER_STATE, ServingKit, click, impression
from tests.tiers_kit import CountingStore


class Forgetful(MemoryStore):
    """A cache that has something else of some rows than was written last.

    Attributes:
        instead: By key, or None where it has nothing.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.name = "cache"
        self.instead: dict[RowKey, bytes | None] = {}
        self.reads = 0

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        self.reads += 1
        found: dict[RowKey, bytes | None] = dict(await super().read(keys, deadline_ms=deadline_ms))
        found |= {key: self.instead[key] for key in keys if key in self.instead}
        return {key: value for key, value in found.items() if value is not None}


@pytest.fixture
def kit():
    kit = ServingKit(ManualClock(NOW_MS))
    kit.cache = Forgetful(kit.clock)
    kit.web_app()
    return kit


async def clicks(kit: ServingKit, features: list[str] = FEATURES) -> Any:
    return (await answer(kit.server, request([1], features)))["results"][1]["values"]


def remembered(kit: ServingKit) -> Any:
    """Return what is remembered of user 1 for the features asked for."""
    plan = kit.server._planner.plan(features=FEATURES, service=None, full_names=False)
    (entity,) = kit.server._same_again._entities.find(plan.entities[0], [1])
    return entity


@pytest.mark.parametrize("seed", range(6))
async def test_answers_are_those_of_a_server_that_remembers_nothing(kit, seed):
    """
    Events, readers and time in any order, and a cache that loses rows: each answer is made of what the cache has now.
    """
    plain = plain_server(kit)
    chance = random.Random(seed)  # noqa: S311  # to be repeated
    same = 0
    for _ in range(150):
        if await something_happens(kit, chance) == 2:
            key = ROW._replace(pk=f"user#i{chance.randrange(6)}")
            kit.cache.instead = {key: chance.choice([None, b"garbage", new_token()])}
        asked = some_request(chance)
        before = remembered(kit)
        answered, expected = await answer(kit.server, asked), await answer(plain, asked)
        same += before is not None and remembered(kit) is before

        assert_equal(answered, expected)
        await asyncio.sleep(0)
    assert same > 5


async def test_the_cache_is_asked_once_whether_it_has_the_rows_or_not(kit):
    """
    Where it alone cannot answer, what it has said is used for the rest.
    """
    await kit.take("clicks", click(NOW_MS, user=1))
    await clicks(kit)
    before = kit.cache.reads
    await clicks(kit)
    assert kit.cache.reads == before + 1

    kit.cache.instead[ROW] = b"garbage"

    assert await clicks(kit) == [1]
    assert kit.cache.reads == before + 2


async def test_a_row_that_the_cache_has_anew_is_served(kit):
    """
    What was made of the row before is of no use any more.
    """
    await kit.take("clicks", click(NOW_MS, user=1))
    for _ in range(3):
        assert await clicks(kit) == [1]
    assert remembered(kit) is not None

    await kit.take("clicks", click(NOW_MS, user=1))

    assert await clicks(kit) == [2]


async def test_who_was_served_the_newer_row_by_another_request_is_not_served_what_is_remembered(kit):
    """
    A replica that is behind has the bytes of before, of which the answer is still at hand.
    """
    await kit.take("clicks", click(NOW_MS, user=1))
    old = (await kit.record.read([ROW], deadline_ms=1_000))[ROW]
    for _ in range(3):
        assert await clicks(kit) == [1]
    await kit.take("clicks", click(NOW_MS, user=1))
    assert await clicks(kit, FEATURES[:1]) == [2]

    kit.cache.instead[ROW] = old

    assert await clicks(kit) == [2]


@pytest.mark.parametrize("seed", range(4))
async def test_nobody_sees_a_row_go_back_whatever_the_cache_goes_back_to(kit, seed):
    """
    Replicas that are behind take over from one another, and readers of two kinds ask them for the same user.
    """
    chance = random.Random(seed)  # noqa: S311  # to be repeated
    versions, newest = [NO_ROW], 0
    for _ in range(200):
        if chance.random() < 0.1:
            await kit.take("clicks", click(NOW_MS, user=1))
            versions += (await kit.record.read([ROW], deadline_ms=1_000)).values()
        kit.cache.instead = chance.choice([{}, {ROW: chance.choice(versions)}])

        (served,) = await clicks(kit, chance.choice([FEATURES, FEATURES[:1]]))

        assert newest <= served < len(versions)
        newest = served


async def test_that_there_is_no_row_is_forgotten_when_there_is_one(kit):
    """
    The first event of a user shows at the next read, although readers had found nothing before.
    """
    kit.cache.instead[ROW] = NO_ROW
    for _ in range(3):
        assert await clicks(kit) == [0]
    kit.cache.instead.clear()

    await kit.take("clicks", click(NOW_MS, user=1))

    assert await clicks(kit) == [1]


async def test_a_row_that_is_asked_for_twice_is_renewed_once():
    """
    DynamoDB refuses a read that names a row twice: it would leave the cache, and everybody would wait for it.
    """
    group = replace(USER_STATE, serving=ServingPolicy(hard_ttl=seconds(30), jitter=0, early_refresh=16))
    kit = ServingKit(ManualClock(NOW_MS), registry=Registry(groups=(group,), services=()))
    kit.record = record = CountingStore("record", kit.clock)
    await kit.take("impressions", impression(NOW_MS, user=1))
    kit.cache = Forgetful(kit.clock)
    kit.web_app()
    asked = request([1, 1], ["user_state:last_tab"])
    await answer(kit.server, asked)
    record.asked.clear()
    kit.clock.advance(29_999)

    for _ in range(5):
        await answer(kit.server, asked)
        await idle()

    assert record.asked == [[RowKey("user#i1", "user_state@v1")]]


async def test_rows_from_the_cache_are_counted_as_such(kit):
    """
    The operator sees how many rows each tier has answered.
    """
    await kit.take("clicks", click(NOW_MS, user=1))
    for _ in range(4):
        await clicks(kit)

    assert 'freshet_tier_keys_total{outcome="hit",tier="cache"} 4.0' in kit.metrics.text().decode()

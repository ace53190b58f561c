"""Copies in a worker that hears of no change: an answer with them claims no more than they hold."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from typing_extensions import override

from core.definitions import Registry, ServingPolicy
from core.errors import StoreTimeoutError
from core.ports import RowKey
from features.videos import USER_ENGAGEMENT
from serving.answers.requests import FeaturesRequest
from serving.tiers.local import LocalCopies
from stores.memory import MemoryStore
from tests.clock import ManualClock
from tests.serving_kit import ServingKit, impression

NOW_MS = 1_700_000_000_000
FEATURE = "user_engagement:impressions_1h"
POLICY = ServingPolicy(tier="local", jitter=0)
SOFT_TTL_MS = 30_000


class Leaving(MemoryStore):
    """Gives no answer while it is away."""

    is_away = False

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        if self.is_away:
            raise StoreTimeoutError("no answer")
        return await super().read(keys, deadline_ms=deadline_ms)


@pytest.fixture
def owner():
    kit = ServingKit(ManualClock(NOW_MS), registry=Registry(groups=(replace(USER_ENGAGEMENT, serving=POLICY),)))
    kit.record, kit.cache = Leaving(kit.clock), Leaving(kit.clock)
    return kit


@pytest.fixture
async def client(owner):
    """A worker that only serves: it reads what the owner writes."""
    kit = ServingKit(owner.clock, registry=owner.registry, keeps_copies=True)
    kit.record, kit.cache = owner.record, owner.cache
    kit.local = LocalCopies(bytes_max=1 << 20, is_announced=lambda _: False)
    async with TestClient(TestServer(kit.web_app())) as client:
        client.kit = kit
        yield client


async def read(kit: ServingKit, user: int) -> tuple[Any, int, bool]:
    """Return the value, up to when it is said to be complete, and whether nothing was waited for."""
    answered = kit.server.answer(FeaturesRequest(entities={"user_id": [user]}, features=[FEATURE]))
    content = json.loads(answered if isinstance(answered, bytes) else await answered)
    return content["results"][-1]["values"][0], content["metadata"]["min_as_of_ms"], isinstance(answered, bytes)


async def explained(client: TestClient, user: int) -> tuple[Any, int]:
    async with client.get("/explain", params={"feature": FEATURE, "user_id": user}) as answer:
        content = await answer.json()
    return content["value"], content["as_of_ms"]


async def test_an_answer_is_not_said_to_be_complete_beyond_what_its_copy_holds(owner, client):
    """
    Who waits until an answer is complete up to a purchase was told so, by fresh progress beside a copy from before it.
    """
    kit = client.kit
    await owner.take("impressions", impression(NOW_MS))
    assert await read(kit, 1) == (1, NOW_MS, False)
    owner.clock.advance(2_000)
    await owner.take("impressions", impression(NOW_MS + 2_000))

    # Its progress is not known any more, so it is waited for; then it is.
    assert await read(kit, 1) == (1, NOW_MS, False)
    assert await read(kit, 1) == (1, NOW_MS, True)
    assert await explained(client, 1) == (1, NOW_MS)
    owner.clock.advance(SOFT_TTL_MS)
    assert await read(kit, 1) == (2, NOW_MS + 2_000, False)


async def test_nothing_is_known_of_how_complete_it_is_that_there_was_no_row(owner, client):
    """
    The first event of a key makes its row; a copy that says there is none may be from before it.
    """
    kit = client.kit
    await owner.take("impressions", impression(NOW_MS, user=2))
    # User 3 is in the partition of user 2.
    assert await read(kit, 3) == (0, NOW_MS, False)

    assert await read(kit, 3) == (0, 0, True)
    assert await explained(client, 3) == (0, 0)
    kit.clock.advance(2_000)
    assert await read(kit, 3) == (0, 0, False)


async def test_nor_does_progress_speak_of_old_copies(owner, client):
    """
    While the record and Redis fail, copies grow old, and the progress that was known is younger than they.
    """
    kit = client.kit
    await owner.take("impressions", impression(NOW_MS))
    await read(kit, 1)
    owner.clock.advance(SOFT_TTL_MS + 1)
    await owner.take("impressions", impression(owner.clock.now_ms()))
    await kit.server._progress.as_of_ms([("user", partition) for partition in range(8)])
    kit.cache.is_away = kit.record.is_away = True

    assert await read(kit, 1) == (1, NOW_MS, False)
    assert await explained(client, 1) == (1, NOW_MS)


async def test_who_may_have_been_replaced_claims_no_progress_for_its_copies(owner):
    """
    A worker was cut off from Kafka and not from Redis: there it read the progress of its successor, whose changes it did
    not hear of.
    """
    kit = ServingKit(owner.clock, registry=owner.registry, keeps_copies=True)
    kit.record, kit.cache = owner.record, owner.cache
    kit.web_app()
    await owner.take("impressions", impression(NOW_MS))
    await read(kit, 1)
    kit.hears = False
    kit.clock.advance(2_000)
    await owner.take("impressions", impression(NOW_MS + 2_000))

    assert await read(kit, 1) == (1, NOW_MS, False)
    assert await read(kit, 1) == (1, NOW_MS, True)


async def test_a_copy_whose_changes_are_announced_is_as_complete_as_its_partition(owner):
    """
    A quiet key is not an old key.
    """
    kit = ServingKit(owner.clock, registry=owner.registry, keeps_copies=True)
    kit.web_app()
    await kit.take("impressions", impression(NOW_MS, user=2))
    await read(kit, 2)
    kit.clock.advance(2_000)
    await kit.take("impressions", impression(NOW_MS + 2_000, user=3))

    assert await read(kit, 2) == (1, NOW_MS + 2_000, False)
    assert await read(kit, 2) == (1, NOW_MS + 2_000, True)


class Slow(MemoryStore):
    """Reads rows at once and gives them when it is let; what is known of partitions it gives at once."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.is_open = asyncio.Event()
        self.is_asked = asyncio.Event()

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        found = await super().read(keys, deadline_ms=deadline_ms)
        if not all(key.sk.startswith("#") for key in keys):
            self.is_asked.set()
            await self.is_open.wait()
        return found


async def test_who_joins_a_load_claims_no_event_that_came_since_it_began():
    """
    Its progress was read after the row that it gets: that the partition is complete up to now is not true of this row.
    """
    kit = ServingKit(ManualClock(NOW_MS))
    kit.record, kit.cache = Slow(kit.clock), None
    kit.web_app()
    await kit.take("impressions", impression(NOW_MS))
    first = asyncio.create_task(read(kit, 1))
    await kit.record.is_asked.wait()
    kit.clock.advance(2_000)
    await kit.take("impressions", impression(NOW_MS + 2_000))
    second = asyncio.create_task(read(kit, 1))
    for _ in range(10):
        await asyncio.sleep(0)
    kit.record.is_open.set()

    assert await first == (1, NOW_MS, False)
    assert await second == (1, NOW_MS, False)
    assert await read(kit, 1) == (2, NOW_MS + 2_000, False)

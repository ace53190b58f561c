"""Preloading: what a worker that begins copies before anybody asks."""

import asyncio
from dataclasses import replace

import pytest

from app.preload import preload_all, preloaded
from core.definitions import Count, FeatureGroup, Registry, ServingPolicy, aggregate
from core.errors import BrokerError
from core.metrics import Metrics
from core.plans import plan_group
from core.ports import RowKey, StoredRow
from core.rows import pack_change, pack_row
from core.windows import NEVER_MS, hours, minutes
from features.videos import IMPRESSIONS, USER
from serving.answers.read_plans import terms_of
from serving.tiers.local import LocalCopies
from serving.tiers.reader import TieredReader
from serving.tiers.wanted import Wanted
from tests.tiers_kit import CountingStore

HOT = FeatureGroup(
    "hot",
    entity=USER,
    owner="tests",
    features=(aggregate("shown", IMPRESSIONS, Count(), over=(hours(1),)),),
    serving=ServingPolicy(tier="local", soft_ttl=minutes(5), jitter=0, preload=True),
)
COLD = replace(HOT, name="cold", serving=ServingPolicy())
REGISTRY = Registry((HOT, COLD))
PLANS = {group.name: plan_group(group) for group in REGISTRY.groups}
NUMBERS = dict.fromkeys(PLANS, 1)
SOFT_MS = 300_000
USERS = [f"i{number}" for number in range(100)]


@pytest.fixture
def store(clock):
    return CountingStore("record", clock)


def packed(group: str, ver: int) -> bytes:
    return pack_row(
        ver=ver, fingerprint=PLANS[group].fingerprint, as_of_ms=1, valid_from_ms=1, valid_until_ms=2,
        expires_at_ms=NEVER_MS, event_time_ms=1, values=[ver], tail=[],
    )  # fmt: skip


def place(user: str, group: str = "hot") -> RowKey:
    return RowKey(f"user#{user}", f"{group}@v1")


def reader_of(clock, store, *, local: LocalCopies | None = None) -> TieredReader:
    local = local or LocalCopies(bytes_max=1 << 20, is_announced=lambda _: False)
    return TieredReader(local=local, cache=None, record=store, clock=clock, metrics=Metrics())


async def restore(tables) -> None:
    """Leave in tables what their changelogs hold: version 3 of every user's rows, of the groups that are asked for."""
    for table in tables:
        for group in table.groups:
            for user in USERS[table.partition :: USER.partitions]:
                group.put_packed(user, pack_change(packed(group.plan.name, 3), {}), 3)


async def preload(reader, clock, *, restore=restore, within_s: float = 30.0) -> None:
    await preload_all(
        REGISTRY, PLANS, NUMBERS, restore=restore, reader=reader, now_ms=clock.now_ms(), within_s=within_s
    )


async def versions(reader, *users: str, group: str = "hot") -> list[int | None]:
    rows = await reader.read([Wanted(place(user, group), terms_of(PLANS[group])) for user in users])
    return [rows[key].ver if (key := place(user, group)) in rows else None for user in users]


def test_only_groups_that_want_it_are_preloaded():
    """
    A large group in every worker's memory would push the small ones out.
    """
    assert preloaded(REGISTRY) == ["hot"]
    assert preloaded(Registry((replace(HOT, serving=ServingPolicy(preload=True)),))) == []


async def test_preloaded_rows_are_served_without_asking_any_store(clock, store):
    """
    A fleet was started anew, and its first feeds waited for the record while everybody's rows were cold.
    """
    reader = reader_of(clock, store)
    await preload(reader, clock)

    assert await versions(reader, *USERS) == [3] * len(USERS)
    assert store.asked == []
    assert await versions(reader, USERS[0], group="cold") == [None]


async def test_preloaded_copies_age_from_when_reading_began(clock, store):
    """
    Rows that change while a changelog is read are announced to nobody here.
    """
    reader = reader_of(clock, store)

    async def slow(tables) -> None:
        clock.advance(60_000)
        await restore(tables)

    await preload(reader, clock, restore=slow)
    await store.write([StoredRow(place("i1"), 4, packed("hot", 4))], deadline_ms=100)
    clock.advance(SOFT_MS - 60_000)
    before = await versions(reader, "i1")
    clock.advance(1)

    assert (before, await versions(reader, "i1")) == ([3], [4])


async def test_nothing_older_than_was_served_is_preloaded(clock, store):
    """
    A changelog is read for a while; who was served a row meanwhile must not see time go back.
    """
    reader = reader_of(clock, store)

    async def overtaken(tables) -> None:
        await restore(tables)
        await store.write([StoredRow(place("i1"), 4, packed("hot", 4))], deadline_ms=100)
        assert await versions(reader, "i1") == [4]

    await preload(reader, clock, restore=overtaken)

    assert await versions(reader, "i1") == [4]


async def test_preloading_ends_where_the_room_for_copies_ends(clock, store, caplog):
    """
    The last rows would take the place of the first ones, and memory is given in bytes.
    """
    local = LocalCopies(bytes_max=20 * (len(packed("hot", 3)) + 200), is_announced=lambda _: False)
    await preload(reader_of(clock, store, local=local), clock)

    assert (
        sum(local.get(place(user), now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0) is not None for user in USERS) == 20
    )
    assert "not all rows preloaded: there is no room" in caplog.text


@pytest.mark.parametrize("error", [BrokerError("the changelog has lost its beginning"), None], ids=["lost", "late"])
async def test_a_worker_begins_without_what_it_cannot_preload(clock, store, caplog, error):
    """
    Preloading makes the first reads fast; that it fails must not cost any of them.
    """
    reader = reader_of(clock, store)

    async def failing(_tables) -> None:
        if error is not None:
            raise error
        await asyncio.Event().wait()

    await preload(reader, clock, restore=failing, within_s=0.01)

    assert "nothing preloaded" in caplog.text
    assert await versions(reader, "i1") == [None]
    assert store.asked == [[place("i1")]]

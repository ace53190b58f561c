"""Answers from copies alone are those that the stores would give, whatever was remembered of entities."""

import asyncio
import json
import random
from dataclasses import replace

import pytest

from core.definitions import Registry, ServingPolicy
from core.ports import RowKey
from core.rows import unpack_row
from core.windows import NEVER_MS, seconds, to_ms
from features.videos import USER, USER_ENGAGEMENT
from serving.answers.ready_entities import Address, ReadyEntities, ReadyEntity
from serving.answers.requests import FeaturesRequest
from serving.tiers.local import Copy, LocalCopies
from tests.clock import ManualClock
from tests.entity_reads import (
    NOW_MS,
    ROW,
    answer,
    assert_equal,
    plain_server,
    request,
    some_request,
    something_happens,
)
from tests.serving_kit import CITY, CITY_AROUND, ServingKit, click, impression, visit


@pytest.fixture
def kit():
    kit = ServingKit(ManualClock(NOW_MS), keeps_copies=True)
    kit.web_app()
    return kit


@pytest.mark.parametrize(("bytes_max", "at_least"), [(1 << 20, 20), (3_000, 5)])
@pytest.mark.parametrize("seed", range(6))
async def test_answers_are_those_of_a_server_without_copies(seed, bytes_max, at_least):
    """
    Events, readers and time in any order: what is remembered of a user must end with each change of one of its rows,
    and with each tile that leaves a window, also where there is no room for the copies that it was made of.
    """
    kit = ServingKit(ManualClock(NOW_MS), keeps_copies=True)
    kit.local = LocalCopies(bytes_max=bytes_max, is_announced=lambda _: True)
    kit.web_app()
    chance, plain = random.Random(seed), plain_server(kit)  # noqa: S311  # to be repeated
    at_once = 0
    for _ in range(150):
        await something_happens(kit, chance)
        asked = some_request(chance)
        answered, expected = kit.server.answer(asked), await answer(plain, asked)
        at_once += isinstance(answered, bytes)
        answered = json.loads(answered if isinstance(answered, bytes) else await answered)

        assert_equal(answered, expected)
        # The refresh of progress that may have begun.
        await asyncio.sleep(0)
    assert at_once > at_least


async def test_a_change_is_heard_of_although_the_copy_was_displaced():
    """
    What was made of it is still there, and would be served until a tile boundary passes.
    """
    kit = ServingKit(ManualClock(NOW_MS), keeps_copies=True)
    kit.local = LocalCopies(bytes_max=600, is_announced=lambda _: True)
    kit.web_app()
    for user in (1, 2):
        await kit.take("clicks", click(NOW_MS, user=user))
        for _ in range(3):
            await answer(kit.server, request([user]))
    assert held(kit) is None
    assert isinstance(kit.server.answer(request([1])), bytes)

    await kit.take("clicks", click(NOW_MS, user=1))

    assert (await answer(kit.server, request([1])))["results"][1]["values"] == [2]


async def test_a_newer_version_ends_what_was_made_of_a_copy_that_was_displaced():
    """
    Who does not hear of changes may meet one all the same, and must not serve the older row again.
    """
    local, told = LocalCopies(bytes_max=900, is_announced=None), []
    local.watch(changed=told.extend, cleared=told.clear)

    local.drop_older(ROW, 2)

    assert told == [ROW.pk]


async def test_copies_of_which_something_is_served_are_not_displaced_as_if_they_were_of_no_use(kit):
    """
    While the record fails, it is these that everybody asks for.
    """
    await kit.take("impressions", impression(NOW_MS))
    row = unpack_row((await kit.record.read([ROW], deadline_ms=1_000))[ROW])
    kit.clock.advance(row.valid_until_ms - 10_000 - NOW_MS)
    for _ in range(3):
        await answer(kit.server, request([1]))
    copy = held(kit)
    kit.local.put(ROW._replace(pk="user#i77"), copy.row, size=(1 << 20) - 300, read_at_ms=kit.clock.now_ms())
    assert held(kit) is None

    kit.clock.advance(10_000)
    await kit.server._progress.as_of_ms([("user", partition) for partition in range(USER.partitions)])

    assert isinstance(kit.server.answer(request([1])), bytes)
    assert held(kit) is copy


def held(kit: ServingKit) -> Copy | None:
    return kit.local.get(ROW, now_ms=NEVER_MS, oldest_ms=0, oldest_none_ms=0)


async def test_a_key_of_another_type_is_refused_although_its_equal_is_remembered(kit):
    """
    True and 1.0 are 1 to a dictionary; a user's row is no answer to them.
    """
    await kit.take("impressions", impression(NOW_MS))
    for _ in range(3):
        await answer(kit.server, request([1]))
    assert isinstance(kit.server.answer(request([1])), bytes)

    for key in (True, 1.0, "1"):
        with pytest.raises(Exception, match=rf"expected int, got {type(key).__name__}"):
            await answer(kit.server, request([1, key]))


async def test_what_was_remembered_goes_with_the_partition(kit):
    """
    Its next owner writes the rows, and nobody tells us.
    """
    await kit.take("impressions", impression(NOW_MS))
    for _ in range(3):
        await answer(kit.server, request([1]))
    assert isinstance(kit.server.answer(request([1])), bytes)

    kit.local.clear()

    waiting = kit.server.answer(request([1]))
    assert not isinstance(waiting, bytes)
    await waiting


async def test_what_was_remembered_grows_old_with_its_copies(kit):
    """
    A change of which we were not told shows after soft_ttl at the latest.
    """
    await kit.take("impressions", impression(NOW_MS))
    for _ in range(3):
        await answer(kit.server, request([1]))
    assert isinstance(kit.server.answer(request([1])), bytes)

    kit.clock.advance(to_ms(USER_ENGAGEMENT.serving.soft_ttl) + 1)
    await kit.server._progress.as_of_ms([("user", partition) for partition in range(USER.partitions)])

    waiting = kit.server.answer(request([1]))
    assert not isinstance(waiting, bytes)
    await waiting


async def test_a_row_that_is_over_is_there_again_when_the_clock_is_put_back(kit):
    """
    An instant decides what is served, not what was served a moment ago.
    """
    await kit.take("impressions", impression(NOW_MS))
    row = unpack_row((await kit.record.read([ROW], deadline_ms=1_000))[ROW])
    kit.clock.advance(row.expires_at_ms - 1 - NOW_MS)
    statuses = []
    for step_ms in (0, 0, 1, 0, 0, -1):
        kit.clock.advance(step_ms)
        asked = kit.server.answer(request([1]))
        answered = json.loads(asked if isinstance(asked, bytes) else await asked)
        statuses.append(answered["results"][1]["statuses"][0])

    assert statuses == ["PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND", "NOT_FOUND", "PRESENT"]


async def test_a_copy_that_was_read_before_the_clock_was_put_back_is_read_again_although_its_row_is_ahead():
    """
    An answer's instant is that of its newest row, whose writer's clock may be ahead of ours: a copy of that row, of
    whose changes nobody tells us, was served until our clock had come back to when it was read.
    """
    local = replace(CITY_AROUND, serving=ServingPolicy(tier="local", soft_ttl=seconds(5)))
    writer = ServingKit(ManualClock(NOW_MS), registry=Registry(groups=(local,)))
    kit = ServingKit(writer.clock, registry=writer.registry, keeps_copies=True)
    kit.record, kit.cache = writer.record, writer.cache
    kit.local = LocalCopies(bytes_max=1 << 20, is_announced=None)
    kit.web_app()
    asked = FeaturesRequest(entities={"city": ["Ulm"]}, features=["city_around:visits_1h"])
    await writer.take("visits", visit(NOW_MS, "Ulm"), record_time_ms=NOW_MS + 500)
    for _ in range(3):
        await answer(kit.server, asked)
    assert isinstance(kit.server.answer(asked), bytes)

    kit.clock.advance(-600_000)
    await writer.take("visits", visit(NOW_MS, "Ulm"), record_time_ms=NOW_MS + 500)
    await kit.server._progress.as_of_ms([("city", partition) for partition in range(CITY.partitions)])

    assert (await answer(kit.server, asked))["results"][1]["values"] == [2]


def entity(key: int) -> ReadyEntity:
    address = Address(f"i{key}", ("user", 0), (RowKey(f"user#i{key}", "spend@v1"),))
    return ReadyEntity(
        address,
        (),
        (),
        (),
        as_of_ms=0,
        valid_from_ms=0,
        from_ms=0,
        until_ms=1,
        sure_until_ms=1,
        is_told=True,
        is_present=True,
    )


class Shape:
    """As far as memory is concerned, a read is its number of groups and features: 2,500 bytes here."""

    groups, features = (None,), ((0, 0),) * 10


def test_an_entity_is_kept_when_it_is_asked_for_again():
    """
    Most keys of a crawler are asked for once; they would push out those that are asked for all day.
    """
    entities, shape, first = ReadyEntities(), Shape(), entity(1)

    entities.keep(shape, 1, first)
    assert entities.find(shape, [1]) == [None]

    entities.keep(shape, 1, first)
    assert entities.find(shape, [1, 2]) == [first, None]


def test_entities_are_bounded_in_bytes_and_the_oldest_go_first():
    """
    A thousand shapes of a million users are more than there is memory.
    """
    entities, shape = ReadyEntities(bytes_max=7_500), Shape()
    for key in range(5):
        for _ in range(2):
            entities.keep(shape, key, entity(key))

    assert [one is not None for one in entities.find(shape, range(5))] == [False, False, True, True, True]

    entities.forget(["user#i3", "user#i77"])
    assert [one is not None for one in entities.find(shape, range(5))] == [False, False, True, False, True]

"""Answers from copies alone are those that the stores would give, whatever was remembered of entities."""

import asyncio
import inspect
import json
import random
from typing import Any

import pytest

from core.ports import RowKey
from core.rows import unpack_row
from core.windows import minutes, to_ms
from features.videos import USER, USER_ENGAGEMENT
from serving.ready_entities import ReadyEntities, ReadyEntity
from serving.requests import FeaturesRequest
from serving.server import FeatureServer
from tests.clock import ManualClock
from tests.serving_kit import ServingKit, click, impression

NOW_MS = 1_700_000_000_000
FEATURES = ["user_engagement:clicks_1h", "user_engagement:impressions_1d", "user_engagement:ctr_1h"]
MORE = [*FEATURES, "video_popularity:impressions_1h", "user_state:last_tab"]


def request(users: list[Any], features: list[str] = FEATURES, **more: Any) -> FeaturesRequest:
    return FeaturesRequest(entities={"user_id": users, **more}, features=features)


async def answer(server: FeatureServer, asked: FeaturesRequest) -> Any:
    answered = server.answer(asked)
    return json.loads(await answered if inspect.isawaitable(answered) else answered)


@pytest.fixture
def kit():
    kit = ServingKit(ManualClock(NOW_MS), keeps_copies=True)
    kit.web_app()
    return kit


def server_without_copies(kit: ServingKit) -> FeatureServer:
    other = ServingKit(kit.clock)
    other.record, other.cache = kit.record, None
    other.web_app()
    return other.server


@pytest.mark.parametrize("seed", range(12))
async def test_answers_are_those_of_a_server_without_copies(kit, seed):
    """
    Events, readers and time in any order: what is remembered of a user must end with each change of one of its rows,
    and with each tile that leaves a window.
    """
    chance, plain = random.Random(seed), server_without_copies(kit)  # noqa: S311  # to be repeated
    at_once = 0
    for _ in range(150):
        match chance.randrange(4):
            case 0:
                user, video = chance.randrange(6), chance.randrange(3)
                make, topic = chance.choice([(impression, "impressions"), (click, "clicks")])
                await kit.take(topic, make(kit.clock.now_ms(), user=user, video=video))
            case 1:
                kit.clock.advance(chance.choice([0, 1, 40, 7_000, to_ms(minutes(5)), 3_600_000]))
        users = [chance.randrange(8) for _ in range(chance.choice([1, 2, 20]))]
        asked = request(users, chance.choice([FEATURES, MORE]), video_id=[chance.randrange(4) for _ in users])
        if asked.features is FEATURES:
            asked = request(users)
        answered, expected = kit.server.answer(asked), await answer(plain, asked)
        at_once += isinstance(answered, bytes)
        answered = json.loads(answered if isinstance(answered, bytes) else await answered)

        assert answered["results"] == expected["results"]
        assert answered["metadata"]["feature_names"] == expected["metadata"]["feature_names"]
        assert answered["metadata"]["min_as_of_ms"] <= expected["metadata"]["min_as_of_ms"]
        # The refresh of progress that may have begun.
        await asyncio.sleep(0)
    assert at_once > 20


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
    key = RowKey("user#i1", "user_engagement@v1")
    row = unpack_row((await kit.record.read([key], deadline_ms=1_000))[key])
    kit.clock.advance(row.expires_at_ms - 1 - NOW_MS)
    statuses = []
    for step_ms in (0, 0, 1, 0, 0, -1):
        kit.clock.advance(step_ms)
        asked = kit.server.answer(request([1]))
        answered = json.loads(asked if isinstance(asked, bytes) else await asked)
        statuses.append(answered["results"][1]["statuses"][0])

    assert statuses == ["PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND", "NOT_FOUND", "PRESENT"]


def entity() -> ReadyEntity:
    return ReadyEntity((), ("user", 0), as_of_ms=0, valid_from_ms=0, from_ms=0, until_ms=1, sure_until_ms=1)


class Shape:
    """As far as memory is concerned, a read is its number of features."""

    features = ((0, 0),) * 10


def test_an_entity_is_kept_when_it_is_asked_for_again():
    """
    Most keys of a crawler are asked for once; they would push out those that are asked for all day.
    """
    entities, shape, first = ReadyEntities(), Shape(), entity()

    entities.keep(shape, 1, "user#i1", first)
    assert entities.find(shape, [1]) == [None]

    entities.keep(shape, 1, "user#i1", first)
    assert entities.find(shape, [1, 2]) == [first, None]


def test_entities_are_bounded_by_their_values_and_the_oldest_go_first():
    """
    A thousand shapes of a million users are more than there is memory.
    """
    entities, shape = ReadyEntities(values_max=30), Shape()
    for key in range(5):
        for _ in range(2):
            entities.keep(shape, key, f"user#i{key}", entity())

    assert [one is not None for one in entities.find(shape, range(5))] == [False, False, True, True, True]

    entities.forget(["user#i3", "user#i77"])
    assert [one is not None for one in entities.find(shape, range(5))] == [False, False, True, False, True]

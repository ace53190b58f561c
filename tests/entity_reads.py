"""Reads of users as a feed asks for them, and worlds in which each answer is compared with that of a plain server."""

import inspect
import json
from random import Random
from typing import Any

from core.ports import RowKey
from core.windows import minutes, to_ms
from serving.answers.requests import FeaturesRequest
from serving.answers.server import FeatureServer
from tests.serving_kit import ServingKit, click, impression

NOW_MS = 1_700_000_000_000
FEATURES = ["user_engagement:clicks_1h", "user_engagement:impressions_1d", "user_engagement:ctr_1h"]
MORE = [*FEATURES, "video_popularity:impressions_1h", "user_state:last_tab"]
ROW = RowKey("user#i1", "user_engagement@v1")


def request(users: list[Any], features: list[str] = FEATURES, **more: Any) -> FeaturesRequest:
    return FeaturesRequest(entities={"user_id": users, **more}, features=features)


async def answer(server: FeatureServer, asked: FeaturesRequest) -> Any:
    answered = server.answer(asked)
    return json.loads(await answered if inspect.isawaitable(answered) else answered)


def plain_server(kit: ServingKit) -> FeatureServer:
    """Return a server that reads the kit's record, and keeps and remembers nothing."""
    other = ServingKit(kit.clock)
    other.record, other.cache = kit.record, None
    other.web_app()
    return other.server


async def something_happens(kit: ServingKit, chance: Random) -> int:
    """Let an event come (0), or time pass (1), or neither (2, 3); return which."""
    what = chance.randrange(4)
    if what == 0:
        user, video = chance.randrange(6), chance.randrange(3)
        make, topic = chance.choice([(impression, "impressions"), (click, "clicks")])
        await kit.take(topic, make(kit.clock.now_ms(), user=user, video=video))
    elif what == 1:
        kit.clock.advance(chance.choice([0, 1, 40, 7_000, to_ms(minutes(5)), 3_600_000]))
    return what


def some_request(chance: Random) -> FeaturesRequest:
    """Return a request of one of two shapes, for one to twenty users, some of them more than once."""
    users = [chance.randrange(8) for _ in range(chance.choice([1, 2, 20]))]
    features, videos = chance.choice([FEATURES, MORE]), [chance.randrange(4) for _ in users]
    return request(users) if features is FEATURES else request(users, features, video_id=videos)


def assert_equal(answered: Any, expected: Any) -> None:
    """Fail unless an answer says what a plain server says, and claims to be no more complete."""
    assert answered["results"] == expected["results"]
    assert answered["metadata"]["feature_names"] == expected["metadata"]["feature_names"]
    assert answered["metadata"]["min_as_of_ms"] <= expected["metadata"]["min_as_of_ms"]

"""Events over HTTP: what is accepted counts once and is never buried; what is refused is told row by row."""

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import AwareDatetime, BaseModel, ConfigDict

from agents.decode import SourceDecoder, decoders_of
from core.definitions import Count, Entity, FeatureGroup, Registry, Source, aggregate
from core.errors import BrokerError, EventError
from core.windows import hours
from serving.models import Mistake
from serving.push.events import EVENT_BYTES_MAX, EventMaker, Outgoing
from serving.push.requests import COLUMNS_MAX, ROWS_MAX
from serving.push.routes import PushRoutes
from tests.serving_kit import NOW_MS, REGISTRY, ServingKit

CLICK = {"user_id": [1], "video_id": [7], "tab": [0]}


class Topics:
    """Takes events as a broker would, and has them counted at once; or fails as a broker does."""

    def __init__(self, kit: ServingKit) -> None:
        self.kit = kit
        self.sent: list[tuple[str, Outgoing]] = []
        self.error: BrokerError | EventError | None = None

    async def send(self, topic: str, events: Sequence[Outgoing]) -> None:
        if self.error is not None:
            raise self.error
        self.sent += [(topic, event) for event in events]
        await self.kit.take(topic, *(orjson.loads(event.value) for event in events))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(event.value) for _, event in self.sent]


@pytest.fixture
def topics(kit):
    return Topics(kit)


@pytest.fixture
async def client(kit, topics):
    app = kit.web_app(body_deadline_ms=300)
    readers = decoders_of(REGISTRY)
    pushing = PushRoutes(
        registry=REGISTRY, readers=lambda: readers, intake=lambda: topics, clock=kit.clock, metrics=kit.metrics
    )
    for route in pushing.table():
        route.attach(app)
    async with TestClient(TestServer(app)) as client:
        yield client


async def push(client, df, *, source="clicks", headers=None, **more) -> tuple[int, str]:
    body = {"push_source_name": source, "df": df, **more}
    async with client.post("/push", json=body, headers=headers) as answer:
        return answer.status, await answer.text()


async def clicks_of(client, *users: int) -> list[int]:
    request = {"entities": {"user_id": list(users)}, "features": ["user_engagement:clicks_1h"]}
    async with client.post("/get-online-features", json=request) as answer:
        return (await answer.json())["results"][1]["values"]


def stamped(df: dict[str, list[Any]], time_ms: int = NOW_MS, **more: list[Any]) -> dict[str, list[Any]]:
    return {**df, "time_ms": [time_ms] * len(next(iter(df.values()))), **more}


async def test_pushed_events_are_counted_like_any_other(client, topics):
    """
    A team without Kafka sends columns over HTTP and reads the features a moment later.
    """
    status, body = await push(
        client,
        {
            "user_id": [1, 2, 1],
            "video_id": [7, 7, 8],
            "tab": [0, 0, 0],
            "event_id": ["a", "b", "c"],
            "time_ms": [NOW_MS] * 3,
        },
    )

    assert (status, body) == (200, "")
    assert await clicks_of(client, 1, 2, 3) == [2, 1, 0]
    assert [event.key for _, event in topics.sent] == [b"i1", b"i2", b"i1"]
    assert topics.events[0] == {"user_id": 1, "video_id": 7, "tab": 0, "event_id": "a", "time_ms": NOW_MS}


async def test_a_request_that_is_sent_again_counts_once(client, topics):
    """
    Feast's SDK repeats a request up to three times when no answer came; events without an id would count four times.
    """
    df = stamped({"user_id": [1, 1, 1], "video_id": [7, 7, 8], "tab": [0, 0, 0]})

    first, again = await push(client, df), await push(client, df)

    ids = [event["event_id"] for event in topics.events]
    assert (first[0], again[0]) == (200, 200)
    assert ids[:3] == ids[3:]
    # Two equal rows of one request are two events.
    assert len(set(ids[:3])) == 3
    assert await clicks_of(client, 1) == [3]


async def test_a_request_with_a_key_of_its_own_needs_no_time(client, kit, topics):
    """
    A click that is sent as it happens has no time; the key tells its repetition from the next, equal click.
    """
    statuses = [(await push(client, CLICK, headers={"Idempotency-Key": key}))[0] for key in ("k1", "k1", "k2")]

    assert statuses == [200, 200, 200]
    assert [event["time_ms"] for event in topics.events] == [NOW_MS] * 3
    assert await clicks_of(client, 1) == [2]


async def test_a_row_that_could_be_a_repetition_is_refused(client, topics):
    """
    Without id, time and key nobody could tell a retry from a second click: either would be wrong half of the time.
    """
    status, body = await push(client, CLICK)

    assert status == 422
    assert "Idempotency-Key" in json.loads(body)["detail"]
    assert topics.sent == []


async def test_every_mistake_of_every_row_is_told_and_nothing_is_sent(client, topics):
    """
    A producer mends all of it in one go, and does not have to find out which rows were taken.
    """
    status, body = await push(
        client,
        stamped({"user_id": [1, "2", -3], "video_id": [7, None, 8], "event_id": ["a", "b", "c"]}),
    )

    mistake = Mistake.model_validate_json(body)
    told = [(one.row, one.detail) for one in mistake.rows]
    assert status == 422
    assert {row for row, _ in told} == {0, 1, 2}
    for row, field in ((0, "tab"), (1, "user_id"), (1, "video_id"), (1, "tab"), (2, "user_id"), (2, "tab")):
        assert any(number == row and detail.startswith(f"{field}: ") for number, detail in told), (row, field, told)
    assert mistake.detail.startswith(f"row 0: {told[0][1]}; and {len(told) - 1} mistakes more; nothing was sent")
    assert topics.sent == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"time_ms": [NOW_MS - 2 * 3_600_000]}, "its time is 7200 s before it came"),
        ({"time_ms": [NOW_MS + 60_000]}, "its time is 60 s after it came"),
        ({"event_timestamp": ["yesterday"]}, "event_timestamp: 'yesterday' is no time"),
        ({"event_id": [""], "time_ms": [NOW_MS]}, "event_id"),
        ({"event_id": ["x" * 129], "time_ms": [NOW_MS]}, "event_id"),
        ({"event_id": ["a"], "time_ms": [1.5]}, "time_ms"),
        ({"more": ["x" * EVENT_BYTES_MAX], "time_ms": [NOW_MS]}, "the limit of a pushed event"),
    ],
)
async def test_what_the_dispatcher_would_bury_is_refused(client, topics, more, words):
    """
    An answer of 200 for an event that ends as a dead letter is a lie that is found weeks later.
    """
    status, body = await push(client, {**CLICK, **more})

    assert status == 422
    assert words in body
    assert topics.sent == []


async def test_mistakes_are_bounded(client):
    """
    Ten thousand wrong rows are one answer that can be read.
    """
    _, body = await push(client, stamped({"user_id": ["x"] * 1_000}))

    told = json.loads(body)
    assert len(told["rows"]) == 100
    assert "and 2999 mistakes more; nothing was sent" in told["detail"]


async def test_the_times_that_feast_sends_are_utc(client, topics):
    """
    Feast's SDK leaves the zone out and calls the column event_timestamp; created says when it made the row.
    """
    await push(client, {**CLICK, "event_timestamp": ["2023-11-14T22:13:19.123456"], "created": [None]})
    await push(
        client, {**CLICK, "event_timestamp": ["2023-11-14T23:13:19.123+01:00"], "created": ["2023-11-14T22:14:00"]}
    )

    assert [event["time_ms"] for event in topics.events] == [NOW_MS - 877, NOW_MS - 877]
    assert all(set(event) == {"user_id", "video_id", "tab", "event_id", "time_ms"} for event in topics.events)


async def test_numbers_are_passed_on_as_they_came(client, topics):
    """
    A 64-bit id that goes through a float on its way is somebody else's.
    """
    raw = b'{"push_source_name":"clicks","df":{"user_id":[9007199254740993],"video_id":[ 1 ],"tab":[0],"time_ms":[1700000000000]}}'

    async with client.post("/push", data=raw) as answer:
        assert answer.status == 200

    assert b'"user_id":9007199254740993,' in topics.sent[0][1].value
    assert topics.sent[0][1].key == b"i9007199254740993"


@pytest.mark.parametrize(
    ("view", "status"), [("clicks", 200), ("city_around", 200), ("user_engagement", 400), ("no_such_view", 404)]
)
async def test_feast_writes_to_a_source_or_to_a_group_that_has_one(client, topics, view, status):
    """
    What Feast's SDK calls a feature view is where events go; a group of several sources cannot say which it is.
    """
    df = {"city": ["Bern"]} if view == "city_around" else CLICK
    body = {"feature_view_name": view, "df": {**df, "event_timestamp": ["2023-11-14T22:13:20"], "created": [None]}}

    async with client.post("/write-to-online-store", json={**body, "allow_registry_cache": False}) as answer:
        told = await answer.json()

    assert answer.status == status
    assert [topic for topic, _ in topics.sent] == {"clicks": ["clicks"], "city_around": ["visits"]}.get(view, [])
    if status == 200:
        assert told is None
    elif status == 400:
        assert "impressions, clicks, conversions" in told["detail"]
    else:
        assert json.loads(told)["class"] == "FeastObjectNotFoundException"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"push_source_name": "no_such", "df": CLICK}, 422, "PushSourceNotFoundException"),
        ({"push_source_name": "clicks", "df": CLICK, "to": "offline"}, 422, "online_and_offline"),
        ({"push_source_name": "clicks", "df": CLICK, "to": "nowhere"}, 422, "online_and_offline"),
        ({"push_source_name": "clicks", "df": {}}, 422, "0 columns"),
        ({"push_source_name": "clicks", "df": {"user_id": []}}, 422, "0 rows"),
        ({"push_source_name": "clicks", "df": {"user_id": [1, 2], "tab": [1]}}, 422, "one length; they have 1, 2"),
        ({"push_source_name": "clicks", "df": {"user_id": [1] * (ROWS_MAX + 1)}}, 422, f"1 to {ROWS_MAX}"),
        (
            {"push_source_name": "clicks", "df": {f"c{n}": [1] for n in range(COLUMNS_MAX + 1)}},
            422,
            f"1 to {COLUMNS_MAX}",
        ),
        ({"push_source_name": "clicks", "df": [1]}, 422, "df"),
        ({"push_source_name": "clicks"}, 422, "df"),
        ({"df": CLICK}, 422, "push_source_name"),
        (b"", 400, "no JSON"),
        (b"<xml/>", 400, "no JSON"),
        (b'{"push_source_name":"clicks","df":{"user_id":[NaN]}}', 400, "no JSON"),
        (b'{"push_source_name":"clicks","df":{"user_id":[' + b"[" * 200_000 + b"]" * 200_000 + b"]}}", 400, "no JSON"),
        (b'{"push_source_name":"clicks","df":{"event_id":["\xff\xfe"],"time_ms":[1]}}', 422, "row 0"),
        (b'{"push_source_name":"clicks","df":{"event_id":["\\ud800"],"time_ms":[1]}}', 400, "no JSON"),
        (b'{"push_source_name":"clicks","df":{"user_id":[' + b"9" * 5_000 + b'],"time_ms":[1]}}', 422, "row 0"),
        (b"x" * (3 << 20), 413, "limit"),
    ],
)
async def test_a_push_that_cannot_be_is_a_clear_mistake_of_the_client(client, topics, body, status, words):
    """
    Whatever is sent: a 4xx with a JSON body that says what would be right, since a 5xx would be sent four times.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async with client.post("/push", data=io.BytesIO(data)) as answer:
        told = await answer.text()

    assert (answer.status, words in told) == (status, True), told
    assert json.loads(told)
    assert topics.sent == []


async def test_a_broker_that_does_not_acknowledge_is_told_as_such(client, kit, topics):
    """
    Only what is in the topic is answered with 200; for the rest the client is told to send the same again.
    """
    topics.error = BrokerError("clicks: not all acknowledged within 10000 ms")
    async with client.post("/push", json={"push_source_name": "clicks", "df": stamped(CLICK)}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "send the same request again" in (await answer.json())["detail"]
    topics.error = EventError("too_large", "clicks takes no record as large as one of these")
    status, _ = await push(client, stamped(CLICK))

    assert status == 413
    assert kit.metric("freshet_pushed_events_total", source="clicks", outcome="unacknowledged") == 1
    assert kit.metric("freshet_pushed_events_total", source="clicks", outcome="refused") == 1


async def test_a_key_that_is_too_long_is_refused(client):
    """
    It is hashed for every row.
    """
    status, body = await push(client, CLICK, headers={"Idempotency-Key": "x" * 257})

    assert (status, "the limit is 256" in body) == (400, True)


class Reading(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    id: int
    event_timestamp: AwareDatetime
    sensor: str


class Beat(BaseModel):
    at: AwareDatetime
    sensor: str


def maker_of(model: type[BaseModel], **fields: Any) -> EventMaker:
    source = Source("readings", model, **fields)
    group = FeatureGroup(
        "sensor_load", entity=Entity("sensor", keys=("sensor",)), owner="tests",
        features=(aggregate("readings", source, Count(), over=(hours(1),)),),
    )  # fmt: skip
    registry = Registry(groups=(group,))
    return EventMaker(SourceDecoder(source, registry.groups), idempotency_key="k", now_ms=NOW_MS)


def test_ids_and_times_are_of_the_model_s_types():
    """
    A source whose ids are integers and whose time is called as Feast calls it, with a zone, takes Feast's rows too.
    """
    made = maker_of(Reading, event_time="event_timestamp", event_id="id").make(
        {"sensor": b'"a"', "event_timestamp": b'"2023-11-14T22:13:20"', "created": b"null"}
    )

    event = json.loads(made.value)
    assert set(event) == {"id", "event_timestamp", "sensor"}
    assert 0 <= event["id"] < 2**63
    assert datetime.fromisoformat(event["event_timestamp"]) == datetime.fromtimestamp(NOW_MS / 1000, tz=UTC)
    assert made.key == b"sa"


def test_a_source_without_ids_takes_rows_as_they_are():
    """
    Its owner has decided that repetitions count; there is no field into which an id could be written.
    """
    made = maker_of(Beat, event_time="at", event_id=None).make({"sensor": b'"a"'})

    assert set(json.loads(made.value)) == {"sensor", "at"}

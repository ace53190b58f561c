"""What clients do wrong: every mistake is told with its field and limit, and none of them is ever ours (5xx)."""

import asyncio
import gzip
import json
from io import BytesIO
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.definitions import Count, FeatureGroup, Registry, aggregate
from core.windows import hours
from features.videos import IMPRESSIONS, USER
from serving.answers.requests import BODY_BYTES_MAX
from tests.clock import ManualClock
from tests.serving_kit import NOW_MS, ServingKit, impression, visit

DEADLINE_S = 5
PATH = "/get-online-features"
GOOD = {"entities": {"user_id": [1]}, "features": ["user_engagement:impressions_1h"]}


async def post(client: TestClient, body: Any, **headers: str) -> tuple[int, Any]:
    """Post a body, bytes as they are and the rest as JSON; every answer must be JSON."""
    data = (
        body if hasattr(body, "__aiter__") else BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    )
    async with asyncio.timeout(DEADLINE_S):
        async with client.post(PATH, data=data, headers=headers) as answer:
            assert answer.content_type == "application/json"
            return answer.status, orjson.loads(await answer.read())


def told(content) -> str:
    """Return what a client is told: Feast's own errors are JSON in a JSON string, any other is an object."""
    return json.loads(content)["message"] if isinstance(content, str) else content["detail"]


def entities(**columns: list[Any]) -> dict[str, Any]:
    return {**GOOD, "entities": columns}


def features(*names: str, **more: Any) -> dict[str, Any]:
    return {"entities": {"user_id": [1], "tab": [1], "video_id": [1], "city": ["x"]}, "features": list(names), **more}


def service(name: Any) -> dict[str, Any]:
    return {"entities": {"user_id": [1]}, "feature_service": name}


MISTAKES = {
    "no entities": ({"features": ["a:b"]}, 422, ["entities"]),
    "entities of another type": ({**GOOD, "entities": [1]}, 422, ["entities", "object"]),
    "a column that is no list": (entities(user_id=1), 422, ["entities", "array"]),
    "features of another type": ({**GOOD, "features": "a:b"}, 422, ["features", "array"]),
    "a feature that is no string": ({**GOOD, "features": [1]}, 422, ["features[0]", "str"]),
    "a service that is no string": (service(["home_feed"]), 422, ["feature_service", "str"]),
    "a flag that is no boolean": ({**GOOD, "full_feature_names": "yes"}, 422, ["full_feature_names", "bool"]),
    "not an object": ([], 422, ["object", "array"]),
    "no key column at all": (entities(), 400, ["entities", "at least one key column"]),
    "the key column of another entity": (entities(video_id=[1]), 400, ["user_id", "'user'", "missing"]),
    "half of a composite key": (
        {"entities": {"user_id": [1]}, "features": ["user_tab_engagement:clicks_1h"]},
        400,
        ["'tab'", "'user_tab'", "user_id, tab"],
    ),
    "columns of unequal length": (entities(user_id=[1, 2], q=[1]), 400, ["one length", "'user_id' has 2", "'q' has 1"]),
    "no rows": (entities(user_id=[]), 400, ["0 rows", "1 to 1000"]),
    "too many rows": (entities(user_id=list(range(1_001))), 400, ["1001 rows", "1 to 1000"]),
    "neither features nor service": ({"entities": {"user_id": [1]}}, 400, ["features", "feature_service"]),
    "no features": ({**GOOD, "features": []}, 400, ["features", "feature_service"]),
    "too many features": (features(*["user_taste:tab"] * 1_001), 400, ["features: 1001", "1000"]),
    "a reference without a group": (features("clicks_1h"), 400, ["'clicks_1h'", "group:feature"]),
    "a reference without a feature": (features("user_engagement:"), 400, ["'user_engagement:'", "group:feature"]),
    "a name beyond all measure": (features("x" * 100_000), 400, ["features", "100000", "512"]),
    "a service beyond all measure": (service("x" * 100_000), 400, ["feature_service", "100000", "512"]),
    "a field that is nearly one": (
        {"entities": {"user_id": [1]}, "feature": ["user_taste:tab"]}, 400, ["no field 'feature'", "mean 'features'"],
    ),
    "entities in the singular": ({"entity": {"user_id": [1]}, "features": []}, 422, ["mean 'entities'"]),
    "no version after the @": (features("user_taste@:tab"), 400, ["'user_taste@:tab'", "names no version"]),
    "an unknown feature": (features("user_taste:tub"), 400, ["'user_taste'", "'tub'", "did you mean tab"]),
    "a text for an integer key": (entities(user_id=[1, "1"]), 400, ["entities.user_id[1]", "expected int", "got str"]),
    "an integer for a text key": (
        {"entities": {"city": [1]}, "feature_service": "cities"}, 400, ["entities.city[0]", "expected str", "got int"],
    ),
    "a boolean key": (entities(user_id=[True]), 400, ["entities.user_id[0]", "got bool"]),
    "a null key": (entities(user_id=[None]), 400, ["entities.user_id[0]", "got NoneType"]),
    "a fraction": (entities(user_id=[1.0]), 400, ["entities.user_id[0]", "got float"]),
    "a list as a key": (entities(user_id=[[1]]), 400, ["entities.user_id[0]", "got list"]),
    "an integer of 65 bits": (entities(user_id=[1, 2**64]), 400, ["row 1", "64 bits"]),
    "an unsigned integer": (entities(user_id=[2**63]), 400, ["row 0", "64 bits"]),
    "a key that is too long": (
        {"entities": {"city": ["x" * 1_024]}, "feature_service": "cities"}, 400, ["row 0", "1025 bytes", "1024"],
    ),
    "an integer of 5,000 digits": (
        b'{"entities":{"user_id":[' + b"9" * 5_000 + b']},"features":["user_taste:tab"]}', 422, ["entities", "range"],
    ),
    "a float beyond all floats": (
        b'{"entities":{"user_id":[1e999]},"features":["user_taste:tab"]}', 422, ["entities", "range"],
    ),
    "NaN": (b'{"entities":{"user_id":[NaN]},"features":["user_taste:tab"]}', 400, ["JSON"]),
    "a lone surrogate in a key": (
        b'{"entities":{"city":["\\ud800"]},"feature_service":"cities"}', 400, ["JSON", "surrogate"],
    ),
    "a lone surrogate in a name": (b'{"entities":{"city":["x"]},"feature_service":"\\udc00"}', 400, ["JSON"]),
    "bytes that are no UTF-8": (b'{"entities":{"city":["\xff"]},"feature_service":"cities"}', 400, ["JSON", "utf-8"]),
    "a surrogate in UTF-8": (b'{"entities":{"city":["\xed\xa0\x80"]},"feature_service":"cities"}', 400, ["JSON"]),
    "lists in lists": (
        b'{"entities":{"user_id":[' + b"[" * 100_000 + b"]" * 100_000 + b']},"features":["a:b"]}', 400, ["recursion"],
    ),
    "objects in an unknown field": (
        b'{"more":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b',"entities":{"user_id":[1]}}', 400, ["recursion"],
    ),
    "not JSON": (b"<xml/>", 400, ["JSON"]),
    "half of it": (b'{"entities":{"user_id":[1', 400, ["JSON"]),
    "more after it": (json.dumps(GOOD).encode() + b"{}", 400, ["JSON"]),
    "nothing": (b"", 400, ["JSON"]),
    "null": (b"null", 422, ["object"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_is_told_with_its_field_and_limit(client, name):
    """
    Feast's SDK repeats a request three times after a 5xx, and its user then learns nothing: so a mistake is a 4xx, in
    JSON, and says what to mend.
    """
    body, status, words = MISTAKES[name]

    found, content = await post(client, body)

    assert found == status
    assert isinstance(content, dict)
    assert [word for word in words if word not in told(content)] == []
    assert len(told(content)) < 1_000


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        (features("user_engagment:clicks_1h"), 404, "FeatureViewNotFoundException", "did you mean user_engagement"),
        (features("x@v2:clicks_1h"), 404, "FeatureViewNotFoundException", "'x'"),
        (features("user_engagement@v2:clicks_1h"), 404, "FeatureViewNotFoundException", "the active one is v1"),
        (service("homefeed"), 404, "FeatureServiceNotFoundException", "did you mean home_feed"),
        (service(""), 404, "FeatureServiceNotFoundException", "''"),
        (
            features("user_engagement:clicks_1h", "video_popularity:clicks_1h"),
            400,
            "FeatureNameCollisionError",
            "full_feature_names",
        ),
        (features("user_taste:tab", "user_taste:tab"), 400, "FeatureNameCollisionError", "'tab'"),
        (
            features("user_taste:tab", "user_tab_engagement:clicks_1h"),
            400,
            "FeatureNameCollisionError",
            "as the key column",
        ),
    ],
)
async def test_errors_that_feast_knows_come_as_json_in_a_json_string(client, body, status, kind, words):
    """
    Feast's client parses the body twice and raises the class that it names; any other shape is a crash in the client.
    """
    found, content = await post(client, body)

    inner = json.loads(content)
    assert found == status
    assert (inner["module"], inner["class"]) == ("feast.errors", kind)
    assert words in inner["message"]


async def test_a_feature_named_like_a_key_of_another_entity_is_read_with_full_names(kit, client):
    """
    user_taste:tab and the key column tab of user_tab came under one name once, and a client that maps by name took
    one for the other.
    """
    await kit.take("impressions", impression(NOW_MS, tab=6))

    status, content = await post(
        client, features("user_taste:tab", "user_tab_engagement:clicks_1h", full_feature_names=True)
    )

    assert status == 200
    assert content["metadata"]["feature_names"] == [
        "user_id", "tab", "user_taste__tab", "user_tab_engagement__clicks_1h",
    ]  # fmt: skip
    assert [result["values"] for result in content["results"]] == [[1], [1], [6], [0]]


async def test_an_answer_has_a_limit_of_its_own():
    """
    A thousand rows of a thousand features are within their own limits, and a million values in one answer.
    """
    many = tuple(aggregate(f"f{number}", IMPRESSIONS, Count(), over=(hours(1),)) for number in range(201))
    registry = Registry(groups=(FeatureGroup("wide", entity=USER, owner="tests", features=many),))
    names = [f"wide:f{number}_1h" for number in range(201)]
    rows = {"user_id": list(range(1_000))}
    async with TestClient(TestServer(ServingKit(ManualClock(), registry=registry).web_app())) as client:
        refused, content = await post(client, {"entities": rows, "features": names})
        taken, _ = await post(client, {"entities": rows, "features": names[1:]})

    assert (refused, taken) == (400, 200)
    assert "201000 values, 200000 are allowed" in told(content)


async def chunks(size: int):
    for _ in range(size >> 16):
        yield b" " * (1 << 16)


async def test_a_body_over_the_limit_is_refused_however_it_is_sent(client):
    """
    A client with a length, one without, and one whose few bytes unpack to many: none of them fills our memory.
    """
    padded = json.dumps(GOOD).encode().ljust(BODY_BYTES_MAX)

    whole = await post(client, padded)
    longer = await post(client, padded + b" ")
    chunked = await post(client, chunks(4 * BODY_BYTES_MAX))
    packed = await post(client, gzip.compress(bytes(8 * BODY_BYTES_MAX)), **{"Content-Encoding": "gzip"})

    assert whole[0] == 200
    assert [status for status, _ in (longer, chunked, packed)] == [413, 413, 413]
    assert str(BODY_BYTES_MAX) in told(longer[1])


async def test_a_body_that_is_not_packed_as_it_says_is_a_mistake_of_the_client(client):
    """
    Content-Encoding: gzip over plain JSON was an error of the server once.
    """
    status, content = await post(client, json.dumps(GOOD).encode(), **{"Content-Encoding": "gzip"})

    assert status == 400
    assert "Content-Encoding" in told(content)


async def test_a_body_that_never_ends_is_given_up(kit):
    """
    A client that stalls in the middle of its body held a connection for ever.
    """
    async with TestServer(kit.web_app(body_deadline_ms=20)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{".encode())
        async with asyncio.timeout(DEADLINE_S):
            answer = await reader.read(4096)
        writer.close()

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"within 20 ms" in answer


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""])
async def test_any_content_type_is_taken(client, content_type):
    """
    With -d, curl says that it sends a form; the body is JSON all the same.
    """
    status, content = await post(client, GOOD, **{"Content-Type": content_type})

    assert status == 200
    assert content["results"][1]["values"] == [0]


async def test_other_methods_and_paths_are_refused(client):
    """
    A browser on the feature route, and whoever looks for Faust's own routes, find nothing.
    """
    statuses = [
        (await client.get(PATH)).status,
        (await client.put(PATH, data=b"{}")).status,
        (await client.get("/table")).status,
        (await client.post("/health")).status,
    ]

    assert statuses == [405, 405, 404, 405]


def json_values() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    )


def requests() -> st.SearchStrategy[dict[str, Any]]:
    """Requests that are nearly right, so that the fuzz gets past the first check."""
    columns = st.sampled_from(["user_id", "video_id", "tab", "city", "q"])
    cells = st.integers(-3, 3) | st.text(max_size=3) | json_values()
    known = st.fixed_dictionaries({"user_id": st.just([1]), "tab": st.just([0]), "city": st.just(["a"])})
    names = ["user_taste:tab", "user_engagement:ctr_7d", "city_direct:note", "user_state:last_ms", "video_quality:x"]
    fields = {
        "entities": known | st.dictionaries(columns, st.lists(cells, max_size=2), max_size=4) | json_values(),
        "features": st.lists(st.sampled_from(names) | st.text(max_size=8), max_size=4) | json_values(),
        "feature_service": st.none() | st.sampled_from(["home_feed", "cities"]) | st.text(max_size=8),
        "full_feature_names": st.booleans(),
        "include_feature_view_version_metadata": st.booleans(),
    }
    return st.fixed_dictionaries({}, optional=fields)


def bodies() -> st.SearchStrategy[bytes]:
    valid = requests().map(lambda request: json.dumps(request).encode())
    cut = st.tuples(valid, st.integers(0, 400), st.binary(max_size=4)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
    )
    return st.binary(max_size=64) | json_values().map(lambda value: json.dumps(value).encode()) | valid | cut


def test_no_body_whatever_is_an_error_of_the_server():
    """
    Whoever can reach the port can send anything: it is answered, in JSON, with 200 or 4xx.
    """
    statuses: set[int] = set()
    with asyncio.Runner() as runner:

        async def opened():
            kit = ServingKit(ManualClock(NOW_MS))
            await kit.take("impressions", impression(NOW_MS, user=1))
            await kit.take("visits", visit(NOW_MS, "a"))
            client = TestClient(TestServer(kit.web_app()))
            await client.start_server()
            return client

        client = runner.run(opened())

        @settings(max_examples=400, derandomize=True, deadline=None)
        @given(bodies())
        @example(b'{"entities":{"\\u0000":[{}]},"features":["\\u0000:\\u0000"]}')
        @example(b'{"entities":{"user_id":[1e308]},"features":["user_taste:tab"],"features":null}')
        def answered(body):
            status, content = runner.run(post(client, body))
            assert status == 200 or 400 <= status < 500
            assert status == 200 or told(content)
            statuses.add(status)

        answered()
        runner.run(client.close())

    assert statuses >= {200, 400, 404, 422}

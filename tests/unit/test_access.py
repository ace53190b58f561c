"""Access: who has a key gets what it allows, and nobody else gets anything."""

import base64
import json
from datetime import UTC, date, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.access import KEYS_MAX, ApiKey, Scope, find_key, new_key, parse_keys
from core.errors import ConfigurationError
from serving.web.access import SCOPES, Gate
from tests.clock import ManualClock
from tests.serving_kit import ServingKit

DAY_MS = 86_400_000
NOW_MS = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp() * 1000)
READ_BODY = {"entities": {"user_id": [1]}, "feature_service": "home_feed"}
OPEN = {path for path, scope in SCOPES.items() if scope is None}


def key_of(*scopes: Scope, name: str = "ranker", last_day: date | None = None) -> tuple[str, ApiKey]:
    return new_key(name, scopes, last_day)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(key: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'me:{key}'.encode()).decode()}"}


@pytest.fixture
def clock():
    return ManualClock(NOW_MS)


@pytest.fixture
def serve(clock):
    """Return a function that serves the routes of a worker behind a gate."""

    def serve(*keys: ApiKey) -> TestClient[web.Request, web.Application]:
        kit = ServingKit(clock)
        app = kit.web_app()
        Gate(keys, clock, kit.metrics).close(app)
        for path in ("/push", "/write-to-online-store", "/not-listed"):
            if path not in {route.resource.canonical for route in app.router.routes() if route.resource}:
                app.router.add_post(path, _taken)
        client: TestClient[web.Request, web.Application] = TestClient(TestServer(app))
        client.kit = kit
        return client

    return serve


async def _taken(_request: web.Request) -> web.Response:
    return web.Response()


async def test_without_a_key_every_route_is_closed_but_those_of_a_load_balancer(serve):
    """
    A route that somebody adds and forgets to protect would be open to the whole network.
    """
    _, configured = key_of(Scope.ADMIN)
    async with serve(configured) as client:
        statuses = {}
        for route in client.app.router.routes():
            path = route.resource.canonical
            async with client.request(route.method, path) as answer:
                statuses[path] = answer.status

    assert {path for path, status in statuses.items() if status != 401} == OPEN & set(statuses)
    assert {statuses[path] for path in OPEN} == {200}
    assert {"/get-online-features", "/metrics", "/push", "/not-listed"} <= set(statuses)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ([Scope.READ], {"/get-online-features", "/metrics"}),
        ([Scope.PUSH], {"/push", "/write-to-online-store"}),
        ([Scope.READ, Scope.PUSH], {"/get-online-features", "/metrics", "/push", "/write-to-online-store"}),
        ([Scope.ADMIN], {"/get-online-features", "/metrics", "/push", "/write-to-online-store", "/not-listed"}),
    ],
)
async def test_a_key_allows_its_scopes_and_nothing_else(serve, scopes, allowed):
    """
    Who only reads features must not be able to make events up; a route that names no scope is the admin's alone.
    """
    key, configured = key_of(*scopes)
    async with serve(configured) as client:
        asked = {}
        for path in ("/get-online-features", "/metrics", "/push", "/write-to-online-store", "/not-listed"):
            method = "GET" if path == "/metrics" else "POST"
            async with client.request(method, path, json=READ_BODY, headers=bearer(key)) as answer:
                asked[path] = answer.status

    assert {path for path, status in asked.items() if status == 200} == allowed
    assert {status for path, status in asked.items() if path not in allowed} <= {403}


async def test_a_feast_client_is_told_of_a_missing_permission_as_it_expects(serve):
    """
    Its SDK decodes the JSON string in the JSON and raises its own FeastPermissionError, with our words.
    """
    key, configured = key_of(Scope.READ, name="ranker")
    async with serve(configured) as client:
        async with client.post("/push", json={}, headers=bearer(key)) as answer:
            forbidden = answer.status, json.loads(await answer.json())
        async with client.post("/get-online-features", json=READ_BODY) as answer:
            unknown = answer.status, json.loads(await answer.json())
            challenges = answer.headers.getall("WWW-Authenticate")

    assert (forbidden[0], unknown[0]) == (403, 401)
    assert (forbidden[1]["module"], forbidden[1]["class"]) == ("feast.errors", "FeastPermissionError")
    assert forbidden[1]["message"] == "the key of 'ranker' allows read; this needs push"
    assert "Authorization: Bearer" in unknown[1]["message"]
    assert [challenge.split()[0] for challenge in challenges] == ["Bearer", "Basic"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Token wrong",
        "Basic",
        "Basic !!",
        "Basic /w==",
        "Bearer \xff",
        "x" * 4_000,
    ],
)
async def test_what_is_no_key_is_refused_and_counted(serve, header):
    """
    Whatever a scanner sends: 401, a body that clients can parse, a count for the operator, and no trace of it anywhere.
    """
    _, configured = key_of(Scope.ADMIN)
    async with serve(configured) as client:
        async with client.post("/get-online-features", json=READ_BODY, headers={"Authorization": header}) as answer:
            told = await answer.text()

        assert (answer.status, client.kit.metric("freshet_requests_refused_total", status="401")) == (401, 1)
        assert json.loads(told)
        assert "wrong" not in told


async def test_a_path_that_does_not_exist_is_not_told_to_strangers(serve):
    """
    Without a key nobody learns which routes there are.
    """
    key, configured = key_of(Scope.PUSH)
    async with (
        serve(configured) as client,
        client.get("/nowhere") as stranger,
        client.get("/nowhere", headers=bearer(key)) as holder,
    ):
        assert (stranger.status, holder.status) == (401, 404)


async def test_a_key_works_through_its_last_day(serve, clock):
    """
    An expiry ends with the day that was named, in UTC, and the holder is told what happened.
    """
    key, configured = key_of(Scope.READ, last_day=date(2026, 11, 24))
    async with serve(configured) as client:
        statuses = []
        for _ in range(2):
            async with client.get("/metrics", headers=bearer(key)) as answer:
                statuses.append((answer.status, "expired at the end of 2026-11-24" in await answer.text()))
            clock.advance(DAY_MS // 2)

    assert statuses == [(200, False), (401, True)]


async def test_two_keys_of_a_name_work_at_once(serve):
    """
    A key is changed without an outage: the new one is handed out while the old one still works.
    """
    old, new = key_of(Scope.READ), key_of(Scope.READ)
    async with serve(old[1], new[1]) as client:
        for key, _ in (old, new):
            async with client.get("/metrics", headers=bearer(key)) as answer:
                assert answer.status == 200


async def test_a_browser_may_read_with_a_password_but_not_push_with_it(serve):
    """
    A browser sends a password by itself, also when a foreign page posts a form to us: nothing may change by that.
    """
    key, configured = key_of(Scope.ADMIN)
    async with (
        serve(configured) as client,
        client.get("/metrics", headers=basic(key)) as read,
        client.post("/push", headers=basic(key)) as push,
    ):
        assert (read.status, push.status) == (200, 401)


async def test_figures_of_ingestion_are_for_those_with_a_key(serve):
    """
    An orchestrator needs the status alone; how much traffic there is is nobody else's business.
    """
    key, configured = key_of(Scope.READ)
    async with (
        serve(configured) as client,
        client.get("/ready/ingest") as stranger,
        client.get("/ready/ingest", headers=bearer(key)) as holder,
    ):
        assert (await stranger.json(), await holder.json()) == ({"ready": True}, {"ready": True, "partitions": 8})


def test_a_key_is_found_by_its_hash_alone():
    """
    Who reads the configuration cannot ask with it; the key itself is in no part of what is kept.
    """
    key, configured = key_of(Scope.READ)
    _, other = key_of(Scope.ADMIN, name="other")

    assert find_key([other, configured], key) is configured
    assert find_key([other, configured], configured.digest.hex()) is None
    assert find_key([other], key) is None
    assert key.removeprefix("freshet_") not in configured.line + repr(configured)


def test_a_line_says_what_the_key_is():
    """
    What `freshet keys new` prints is what a worker reads.
    """
    _, configured = key_of(Scope.PUSH, Scope.READ, name="feed-2", last_day=date(2027, 1, 31))
    _, forever = key_of(Scope.ADMIN)

    assert parse_keys(f" {configured.line}\n{forever.line} ") == (configured, forever)
    assert configured.line.startswith("feed-2:read,push:2027-01-31:")
    assert parse_keys("") == ()


LINE = f"ranker:read:-:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{LINE} ranker:read", "key 2: 2 parts"),
        (LINE.replace("ranker", "Ran ker"), "key 1"),
        (LINE.replace("ranker", "Ranker"), "the name has other characters"),
        (LINE.replace("read", ""), "a scope is read, push or admin"),
        (LINE.replace("read", "read,write"), "a scope is read, push or admin"),
        (LINE.replace("-", "31.12.2026"), "YYYY-MM-DD"),
        (LINE[:-1], "no SHA-256"),
        (LINE[:-1] + "G", "no SHA-256"),
        (" ".join([LINE] * 3), "ranker has 3 keys, 2 are allowed"),
        (" ".join([LINE] * (KEYS_MAX + 1)), f"the limit is {KEYS_MAX}"),
    ],
)
def test_a_line_that_cannot_be_is_told_by_its_number(text, words):
    """
    A worker that ignored a wrong line would refuse its holder at midnight, with nobody there to know why.
    """
    with pytest.raises(ConfigurationError) as refused:
        parse_keys(text)

    assert words in str(refused.value)

"""Whatever is wrong, and whoever finds it, is told in one shape; only Feast's clients are told in theirs."""

import json
import logging
from io import BytesIO

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.access import Scope, new_key
from core.errors import RequestError
from serving.models import Mistake
from serving.web.access import Gate
from serving.web.mistakes import FEAST_PATHS, failure
from tests.clock import ManualClock
from tests.serving_kit import ServingKit

NOW_MS = 1_700_000_000_000


async def fail(_request: web.Request) -> web.Response:
    raise KeyError("nobody has foreseen this of user 4711")


@pytest.fixture
async def client():
    app = ServingKit(ManualClock(NOW_MS)).web_app()
    app.router.add_get("/fails", fail)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/no-such-route", b"", 404, "/openapi.json describes"),
        ("GET", "/get-online-features", b"", 405, "GET is not for this route; POST is"),
        ("DELETE", "/explain", b"", 405, "GET or HEAD is"),
        ("GET", "/page/none.js", b"", 404, "no such file"),
        ("GET", "/explain", b"", 400, "which one?"),
        ("GET", "/explain?feature=none:x&user_id=1", b"", 404, "'none' does not exist"),
        ("GET", "/explain?feature=user_taste:none&user_id=1", b"", 400, "'user_taste' has no feature"),
        ("POST", "/get-online-features", b"{", 400, "no JSON"),
        ("POST", "/get-online-features", b"{}", 422, "entities"),
        ("POST", "/get-online-features", b" " * (3 << 20), 413, "larger than the limit"),
        ("GET", "/fails", b"", 500, "its log says why"),
    ],
)
async def test_every_mistake_has_the_same_shape(client, method, path, body, status, words):
    """
    Whoever writes a client has one thing to parse, not one per kind of mistake and one more for what has none.
    """
    async with client.request(method, path, data=BytesIO(body)) as answer:
        found, media, text = answer.status, answer.content_type, await answer.text()

    assert (found, media) == (status, "application/json")
    assert words in Mistake.model_validate_json(text).detail
    assert set(json.loads(text)) == {"detail"}


async def test_what_nobody_has_foreseen_is_in_the_log_alone(client, caplog):
    """
    An error's text may quote a value; whoever asked is told where to look.
    """
    with caplog.at_level(logging.ERROR):
        async with client.get("/fails") as answer:
            text = await answer.text()

    assert "4711" not in text
    assert "4711" in caplog.text


async def test_a_refused_method_names_those_that_are_taken_in_its_header(client):
    """
    HTTP says so, and tools look there.
    """
    async with client.get("/get-online-features") as answer:
        assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/metrics", "/explain", "/console/catalogue"])
async def test_a_missing_key_is_told_in_this_shape_too(path):
    """
    Feast's own form is for Feast's routes; a script that reads metrics has never heard of it.
    """
    _, configured = new_key("ranker", [Scope.READ], None)
    kit = ServingKit(ManualClock(NOW_MS))
    app = kit.web_app()
    Gate((configured,), kit.clock, kit.metrics).close(app)
    async with TestClient(TestServer(app)) as client, client.get(path) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "needs a key" in Mistake.model_validate_json(await answer.read()).detail


@pytest.mark.parametrize("path", sorted(FEAST_PATHS))
def test_feast_is_told_in_its_own_form_where_it_asks(path):
    """
    Its client parses the body twice and raises what it finds: an object there is a crash in the client.
    """
    error = RequestError(404, "there is none", "FeatureViewNotFoundException")

    told = json.loads(json.loads(failure(error, path=path).body))

    assert told == {"module": "feast.errors", "class": "FeatureViewNotFoundException", "message": "there is none"}
    assert json.loads(failure(error, path="/explain").body) == {"detail": "there is none"}
    assert json.loads(failure(RequestError(400, "no JSON"), path=path).body) == {"detail": "no JSON"}


async def test_every_route_is_described_with_what_may_go_wrong(client):
    """
    A generated client that does not know of 401 and 500 raises an error about the error.
    """
    async with client.get("/openapi.json") as answer:
        document = await answer.json()

    told = {
        path: {status: response["content"] for status, response in operation["responses"].items() if status >= "400"}
        for path, methods in document["paths"].items()
        for operation in methods.values()
    }
    mistake = {"application/json": {"schema": {"$ref": "#/components/schemas/Mistake"}}}
    feast = {"application/json": {"schema": {"$ref": "#/components/schemas/FeastMistake"}}}
    assert {path for path, failures in told.items() if failures["500"] != mistake} == set()
    assert {path for path, failures in told.items() if "401" not in failures} == {"/health", "/ready", "/ready/ingest"}
    assert told["/metrics"]["403"] == mistake
    assert told["/get-online-features"]["401"] == feast

"""The description of the routes: every route is in it, and real answers are what it says."""

from io import BytesIO
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import TypeAdapter

from core.errors import StoreError
from serving.answers.requests import FeaturesRequest
from serving.models import (
    Explanation,
    FeastMistake,
    IngestReadiness,
    Mistake,
    OnlineFeaturesAnswer,
    OnlineFeaturesRequest,
    Readiness,
)
from serving.web.console import Catalogue
from serving.web.figures import Figures
from tests.clock import ManualClock
from tests.serving_kit import FailingStore, ServingKit, impression

NOW_MS = 1_700_000_000_000
READ = {"entities": {"user_id": [1, 2]}, "feature_service": "home_feed", "include_feature_view_version_metadata": True}


@pytest.fixture
async def client():
    kit = ServingKit(ManualClock(NOW_MS))
    await kit.take("impressions", impression(NOW_MS))
    async with TestClient(TestServer(kit.web_app())) as client:
        yield client


async def described(client) -> dict[str, Any]:
    async with client.get("/openapi.json") as answer:
        assert answer.status == 200
        return await answer.json()


async def test_every_attached_route_is_described_and_every_described_one_attached(client):
    """
    A route that is not described is found by nobody but an attacker; one that is described and missing wastes a day.
    """
    document = await described(client)
    attached = {
        (route.resource.canonical, route.method.lower())
        for route in client.server.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }

    told = {(path, method) for path, methods in document["paths"].items() for method in methods}

    assert told == attached
    assert ("/explain", "get") in told
    assert all(operation["summary"] for methods in document["paths"].values() for operation in methods.values())


async def test_every_reference_in_the_description_leads_somewhere(client):
    """
    A generator of clients stops at the first dangling reference.
    """
    document = await described(client)
    references: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            references.extend(value for key, value in node.items() if key == "$ref")
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document["paths"])
    walk(document["components"])

    assert references
    assert {name.removeprefix("#/components/schemas/") for name in references} <= set(document["components"]["schemas"])


async def test_real_answers_are_what_the_description_says(client):
    """
    Whoever writes a client from the description must not find out in production what is really sent.
    """
    for path, model in [
        ("/explain?feature=user_engagement:ctr_1h&user_id=1", Explanation),
        ("/explain?feature=user_engagement:ctr_1h&user_id=9", Explanation),
        ("/ready", Readiness),
        ("/ready/ingest", IngestReadiness),
        ("/console/catalogue", Catalogue),
        ("/console/figures", Figures),
    ]:
        async with client.get(path) as answer:
            assert answer.status == 200
            assert answer.content_type == "application/json"
            model.model_validate_json(await answer.read(), strict=True)
    async with client.post("/get-online-features", json=READ) as answer:
        OnlineFeaturesAnswer.model_validate_json(await answer.read(), strict=True)


async def test_real_mistakes_are_described_under_their_status(client):
    """
    Errors are the part of a contract that is read under stress.
    """
    document = await described(client)
    failure = TypeAdapter(Mistake | FeastMistake)
    for body, status in [
        (b"{", 400),
        (b'{"entities": 1}', 422),
        (b'{"entities": {"user_id": [1]}, "features": ["none:x"]}', 404),
        (b" " * (3 << 20), 413),
    ]:
        async with client.post("/get-online-features", data=BytesIO(body)) as answer:
            assert answer.status == status
            failure.validate_json(await answer.read())
            assert str(status) in document["paths"]["/get-online-features"]["post"]["responses"]


async def test_a_worker_that_cannot_read_answers_as_described():
    """
    The 503 is what a client meets on the worst day of the year.
    """
    kit = ServingKit(ManualClock(NOW_MS))
    kit.cache, kit.record = None, FailingStore("record", StoreError("down"))
    kit.health.readable = False
    async with TestClient(TestServer(kit.web_app())) as client:
        async with client.post("/get-online-features", json=READ) as answer:
            assert answer.status == 503
            Mistake.model_validate_json(await answer.read())
        async with client.get("/ready") as answer:
            assert answer.status == 503
            assert Readiness.model_validate_json(await answer.read()).ready is False


def test_the_described_request_is_the_one_that_is_parsed():
    """
    The hot path has a parser of its own; a field that only one of both knows is a lie in the other.
    """
    parsed = {field.name: field.required for field in msgspec.structs.fields(FeaturesRequest)}

    assert {name: info.is_required() for name, info in OnlineFeaturesRequest.model_fields.items()} == parsed

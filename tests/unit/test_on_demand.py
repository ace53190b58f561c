"""On-demand features from definition to answer."""

from dataclasses import replace

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.catalogue import catalogue
from core.check import check_registry
from core.definitions import FeatureService, OnDemandFeature, OnDemandGroup, ValueType
from core.windows import milliseconds
from tests.clock import ManualClock
from tests.on_demand_kit import GROUP, PER_PRICE, REGISTRY, SEEN, OwnFunctions, per_price, tell
from tests.serving_kit import ServingKit, impression

NOW_MS = 1_700_000_000_000


@pytest.fixture
def kit():
    return ServingKit(ManualClock(NOW_MS), registry=REGISTRY, functions=OwnFunctions())


@pytest.fixture
async def client(kit):
    await kit.take("impressions", impression(NOW_MS, user=1), impression(NOW_MS, user=1))
    async with TestClient(TestServer(kit.web_app())) as client:
        yield client


async def read(client, **request):
    async with client.post("/get-online-features", json=request) as answer:
        return answer.status, await answer.json()


async def test_what_is_computed_stands_where_it_was_asked_for(client):
    """
    Clients take columns by their order.
    """
    status, answer = await read(
        client,
        entities={"user_id": [1, 2, 1], "price": [0.5, 2.0, -1.0]},
        features=["offers:seen_per_price", SEEN, "user_engagement:clicks_1h"],
    )

    assert (status, answer["metadata"]["feature_names"]) == (
        200, ["user_id", "seen_per_price", "impressions_1h", "clicks_1h"],
    )  # fmt: skip
    assert [result["values"] for result in answer["results"][1:]] == [[4.0, 0.0, None], [2, 0, 2], [0, 0, 0]]
    assert answer["results"][1]["statuses"] == ["PRESENT", "PRESENT", "INVALID"]
    assert answer["results"][2]["statuses"] == ["PRESENT", "NOT_FOUND", "PRESENT"]


async def test_inputs_that_were_not_asked_for_are_not_answered(client):
    """
    Whoever wants one number gets one.
    """
    _, answer = await read(client, entities={"user_id": [1], "price": [0.5]}, features=["offers:seen_per_price"])

    assert answer["metadata"]["feature_names"] == ["user_id", "seen_per_price"]
    assert answer["results"][1]["values"] == [4.0]


async def test_a_service_may_have_what_is_computed(client):
    """
    A model reads everything that it needs by one name.
    """
    _, answer = await read(client, entities={"user_id": [1], "price": [0.5]}, feature_service="offer")

    assert [result["values"] for result in answer["results"]] == [[1], [2], [4.0], [0]]


@pytest.mark.parametrize(
    ("entities", "features", "told"),
    [
        ({"user_id": [1]}, ["offers:seen_per_price"], "computed from the column 'price' of the request"),
        ({"user_id": [1], "price": ["free"]}, ["offers:seen_per_price"], "entities.price[0]: expected float, got str"),
        ({"user_id": [1]}, ["offers:seen_per_prize"], "did you mean seen_per_price?"),
    ],
)
async def test_a_mistake_is_told(client, entities, features, told):
    """
    A column that is missing would be a value of nothing.
    """
    status, answer = await read(client, entities=entities, features=features)

    assert status == 400
    assert told in answer["detail"]


async def test_who_asks_why_is_told_what_it_is_made_of(client):
    """
    Nothing of it is stored that could be shown.
    """
    async with client.get("/explain", params={"feature": "offers:seen_per_price", "user_id": "1"}) as answer:
        assert answer.status == 400
        assert f"ask about what it is made of: {SEEN}" in (await answer.json())["detail"]


def test_the_catalogue_has_them_with_their_functions():
    """
    Nothing can check what a function does; who reads the catalogue must know that there is one.
    """
    entry = next(entry for entry in catalogue(REGISTRY) if entry.feature == "seen_per_price")

    assert (entry.definition, entry.python_function) == (f"per_price(seen={SEEN}, price=price)", True)
    assert (entry.entity, entry.keys, entry.window) == ("user", ("user_id",), "on demand")


def test_good_definitions_have_no_problems():
    """
    A check that cries wolf is switched off.
    """
    assert check_registry(REGISTRY) == []


def _local():
    def inner(seen: int) -> int:
        return seen

    return inner


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"function": _local()}, "is no function of a module"),
        ({"function": lambda seen, price: 1.0}, "is no function of a module"),
        ({"function": tell}, "tell takes seen and is given price, seen"),
        ({"features": {"seen": "user_engagement:impressions_9h"}}, "there is no such feature"),
        ({"features": {"seen": "nothing:impressions_1h"}}, "there is no such group"),
        ({"features": {"seen": SEEN, "price": SEEN}}, "price is a feature and of the request"),
        ({"features": {}, "request": {"seen": ValueType.INT, "price": ValueType.FLOAT}}, "it takes no feature"),
        ({"default": "none"}, "the default 'none' is no float"),
        ({"returns": ValueType.LIST}, "it returns"),
        ({"request": {"price": float}}, "the request's price is <class 'float'>"),
        ({"name": "Per Price"}, "the name 'Per Price' is not allowed"),
    ],
)
def test_what_cannot_work_is_told_before_anything_runs(changes, told):
    """
    A function that cannot be found in its process would fail with each answer.
    """
    registry = replace(REGISTRY, on_demand=(replace(GROUP, features=(replace(PER_PRICE, **changes),)),), services=())

    assert any(told in problem.reason for problem in check_registry(registry)), check_registry(registry)


@pytest.mark.parametrize(
    ("group", "told"),
    [
        (replace(GROUP, name="user_engagement"), "a group of stored features has this name"),
        (replace(GROUP, deadline=milliseconds(0)), "deadline is 0 s"),
        (OnDemandGroup("offers", owner="tests", features=()), "features is empty"),
        (OnDemandGroup("offers", owner="tests", features=(PER_PRICE, PER_PRICE)), "2 have this name"),
        (OnDemandGroup("offers", owner="tests", features=(per_price,)), "is no on-demand feature"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_with_a_group_is_told(group, told):
    """
    All problems at once, each with its place.
    """
    registry = replace(REGISTRY, on_demand=(group,), services=())

    assert any(told in problem.reason for problem in check_registry(registry)), check_registry(registry)


def test_a_service_that_names_what_is_not_there_is_told():
    """
    Found at the first request, it would be found in production.
    """
    services = (FeatureService("offer", features=("offers:nothing",)),)

    problems = check_registry(replace(REGISTRY, services=services))

    assert [problem.reason for problem in problems] == ["offers:nothing: there is no such feature"]


def test_a_feature_may_be_computed_from_the_request_and_several_entities():
    """
    Distance between a user and an article needs both.
    """
    both = OnDemandFeature(
        "both",
        function=per_price,
        returns=ValueType.FLOAT,
        features={"seen": SEEN, "price": "video_popularity:impressions_1h"},
    )
    registry = replace(REGISTRY, on_demand=(replace(GROUP, features=(both,)),), services=())

    assert [problem.reason for problem in check_registry(registry)] == []
    assert next(entry for entry in catalogue(registry) if entry.feature == "both").keys == ("user_id", "video_id")

"""On-demand features from definition to answer."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.catalogue import catalogue
from core.check import check_registry
from core.definitions import FeatureService, OnDemandFeature, OnDemandGroup, ValueType
from core.windows import milliseconds
from serving.on_demand.functions import Computed, only_valid, with_invalid
from serving.web.console import Catalogue
from tests.clock import ManualClock
from tests.on_demand_kit import (
    ANGRY_USER,
    GROUP,
    PER_PRICE,
    PRIVATE,
    REGISTRY,
    RISK,
    SEEN,
    OwnFunctions,
    per_price,
    tell,
)
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


async def test_values_that_live_elsewhere_are_fetched_for_the_answer(client):
    """
    They may be read beside stored features, alone, and without their neighbours.
    """
    status, answer = await read(
        client, entities={"user_id": [1, 5]}, features=["risk:band", SEEN, "risk:score", "risk:age"]
    )

    assert (status, answer["metadata"]["feature_names"]) == (200, ["user_id", "band", "impressions_1h", "score", "age"])
    columns = {
        name: (result["values"], result["statuses"])
        for name, result in zip(answer["metadata"]["feature_names"], answer["results"], strict=True)
    }
    assert columns["band"] == ([f"{PRIVATE}-1", None], ["PRESENT", "NOT_FOUND"])
    assert columns["score"] == ([0.1, None], ["PRESENT", "NOT_FOUND"])
    assert columns["age"] == ([None, None], ["NULL_VALUE", "NOT_FOUND"])
    assert columns["impressions_1h"][0] == [2, 0]

    status, alone = await read(client, entities={"user_id": [1]}, features=["risk:score"])
    assert (status, alone["results"][1]["values"]) == (200, [0.1])
    assert alone["metadata"]["min_as_of_ms"] == alone["metadata"]["instant_ms"]


async def test_what_is_computed_may_be_made_of_what_is_fetched(client):
    """
    And of what is stored, in one answer, where each is asked for once.
    """
    _, answer = await read(client, entities={"user_id": [1]}, features=["offers:risk_per_view", "risk:score", SEEN])

    assert [result["values"] for result in answer["results"][1:]] == [[0.05], [0.1], [2]]


async def test_a_source_that_fails_costs_its_own_values_and_what_is_made_of_them(client):
    """
    A function that was given nothing instead of a risk would say that there is none.
    """
    status, answer = await read(
        client, entities={"user_id": [1, ANGRY_USER]}, features=["offers:risk_per_view", "risk:score", SEEN]
    )

    assert status == 200
    assert [(result["values"], result["statuses"]) for result in answer["results"][1:]] == [
        ([None, None], ["INVALID", "INVALID"]),
        ([None, None], ["INVALID", "INVALID"]),
        ([2, 0], ["PRESENT", "NOT_FOUND"]),
    ]


def test_where_an_input_is_no_value_the_function_is_not_called():
    """
    The other rows are computed as if it were not there.
    """
    valid = [True, False, True]

    assert only_valid({"a": [1, 2, 3], "b": [4, 5, 6]}, valid) == {"a": [1, 3], "b": [4, 6]}
    assert with_invalid(Computed([7, 8], ["PRESENT", "PRESENT"]), valid) == Computed(
        [7, None, 8], ["PRESENT", "INVALID", "PRESENT"]
    )


@pytest.mark.parametrize(
    ("entities", "features", "told"),
    [
        ({"user_id": ["1"]}, ["risk:score"], "expected int, got str"),
        ({"article_id": [1]}, ["risk:score"], "the key column 'user_id' of entity 'user' is missing"),
        ({"user_id": [1]}, ["risk:skore"], "did you mean score?"),
    ],
)
async def test_a_mistake_about_a_source_is_told(client, entities, features, told):
    """
    A function that somebody else wrote must not be asked about keys that are none.
    """
    status, answer = await read(client, entities=entities, features=features)

    assert status == 400
    assert told in answer["detail"]


async def explain(client, **params):
    async with client.get("/explain", params=params) as answer:
        return answer.status, await answer.json()


async def test_a_worker_that_runs_no_functions_says_who_does():
    """
    Serving workers leave what may hang and fail to others.
    """
    kit = ServingKit(ManualClock(NOW_MS), registry=REGISTRY)
    async with TestClient(TestServer(kit.web_app())) as client:
        status, answer = await read(client, entities={"user_id": [1]}, features=["risk:score", SEEN])

    assert status == 404
    assert "workers of the roles ondemand and all" in answer["detail"]


async def test_who_asks_why_is_told_the_inputs(client):
    """
    Nothing of it is stored that could be shown; so the read is made, and shown.
    """
    status, told = await explain(client, feature="offers:seen_per_price", user_id="1", price="0.5")

    assert (status, told["value"], told["status"], told["key"]) == (200, 4.0, "PRESENT", {"user_id": 1, "price": 0.5})
    assert told["inputs"] == [
        {"name": "seen", "feature": SEEN, "value": 2, "status": "PRESENT"},
        {"name": "price", "feature": None, "value": 0.5, "status": "PRESENT"},
    ]
    assert told["why"].startswith(f"per_price(seen={SEEN}, price=price) was computed for this question")


async def test_who_asks_why_a_source_says_nothing_is_told(client):
    """
    Its log has the reason; the value that was made of it says that it was not its own fault.
    """
    _, fetched = await explain(client, feature="risk:score", user_id="1")
    _, unknown = await explain(client, feature="risk:score", user_id="5")
    _, failed = await explain(client, feature="risk:score", user_id=str(ANGRY_USER))
    _, made_of = await explain(client, feature="offers:risk_per_view", user_id=str(ANGRY_USER))

    assert fetched["why"] == "It was fetched for this question; it is stored nowhere."
    assert unknown["why"] == "The source knows nothing of this key."
    assert failed["why"].startswith("The source failed")
    assert made_of["why"] == "risk could not be had, so the function was not called."


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"user_id": "1"}, "'price' is missing; it takes user_id, price"),
        ({"user_id": "1", "price": "free"}, "price: expected float, got 'free'"),
        ({"user_id": "1.5", "price": "1"}, "user_id: expected int, got '1.5'"),
        ({"user_id": "1", "price": "1", "colour": "red"}, "'colour' is no column of it"),
    ],
)
async def test_who_asks_why_with_a_mistake_is_told(client, params, told):
    """
    Texts of a URL become the types that the function takes, or a mistake.
    """
    status, answer = await explain(client, feature="offers:seen_per_price", **params)

    assert status == 400
    assert told in answer["detail"]


@pytest.mark.parametrize(("functions", "processes"), [(OwnFunctions(), 2), (None, 0)])
async def test_the_page_is_told_what_they_take_and_who_runs_them(functions, processes):
    """
    A worker that runs no functions shows them all the same: whoever looks for one finds out where to ask.
    """
    kit = ServingKit(ManualClock(NOW_MS), registry=REGISTRY, functions=functions)
    async with TestClient(TestServer(kit.web_app())) as client, client.get("/console/catalogue") as answer:
        told = Catalogue.model_validate_json(await answer.read(), strict=True)

    offers, risk = told.on_demand
    assert told.function_processes == processes
    assert (offers.name, offers.kind, offers.deadline_ms) == ("offers", "computed", 2_000)
    assert [(column.name, column.type) for column in offers.features[0].columns] == [
        ("user_id", "int"),
        ("price", "float"),
    ]
    assert offers.features[0].inputs == {"seen": SEEN}
    assert (risk.name, risk.kind, [value.feature for value in risk.features]) == ("risk", "fetched", list(RISK.returns))
    assert {column.name for value in risk.features for column in value.columns} == {"user_id"}


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


async def fetch_nothing() -> list[None]:
    return []


def fetch_at_once(user_id: Sequence[int]) -> list[None]:
    return [None] * len(user_id)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "offers"}, "a group has this name"),
        ({"name": "user_engagement"}, "a group has this name"),
        ({"returns": {}}, "it returns nothing"),
        ({"returns": {"score": ValueType.LIST}}, "its score is"),
        ({"entity": replace(RISK.entity, name="nobody")}, "no group is of the entity nobody"),
        ({"fetch": fetch_at_once}, "is not async"),
        ({"fetch": 7}, "is no function of a module"),
        ({"fetch": fetch_nothing}, "it takes nothing"),
        ({"deadline": milliseconds(60_000)}, "deadline"),
    ],
)
def test_what_is_wrong_with_a_source_is_told(changes, told):
    """
    Found at the first request, it would be found in production.
    """
    registry = replace(REGISTRY, on_demand_sources=(replace(RISK, **changes),))

    assert any(told in problem.reason for problem in check_registry(registry)), check_registry(registry)


def test_the_catalogue_has_the_values_of_sources():
    """
    Whoever looks for a feature must find it, wherever it lives.
    """
    entry = next(entry for entry in catalogue(REGISTRY) if entry.group == "risk" and entry.feature == "score")

    assert (entry.entity, entry.keys, entry.definition, entry.window) == (
        "user", ("user_id",), "fetch_risk(user_id)", "on demand",
    )  # fmt: skip


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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"on_demand": (RISK,)}, ("on_demand holds the OnDemandSource risk", "move it to on_demand_sources")),
        ({"on_demand_sources": (GROUP,)}, ("on_demand_sources holds the OnDemandGroup offers", "move it to on_demand")),
        ({"groups": (*REGISTRY.groups, GROUP)}, ("groups holds the OnDemandGroup offers", "move it to on_demand")),
        ({"on_demand": GROUP}, ("on_demand is no tuple", "write on_demand=(...,): a tuple of one needs its comma")),
        ({"on_demand": (7,)}, ("on_demand holds the int 7", "give OnDemandGroup(...)")),
    ],
)
def test_what_stands_in_the_wrong_field_is_told(changes, told):
    """
    The check said that all was well, and the worker ended with three traces.
    """
    problems = check_registry(replace(REGISTRY, **{"services": (), **changes}))

    assert told in {(problem.reason, problem.remedy) for problem in problems}, problems


def test_a_service_that_lists_what_is_made_on_demand_as_a_group_is_told():
    """
    It was printed whole, and said not to be in the registry, where it was.
    """
    problems = check_registry(replace(REGISTRY, services=(FeatureService("home", groups=(GROUP,)),)))

    assert [problem.remedy for problem in problems] == ['name what is wanted of it: features=("offers:...",)']

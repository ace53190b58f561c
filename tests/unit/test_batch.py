from datetime import timedelta

import pytest

from core.definitions import (
    Change,
    Count,
    Entity,
    FeatureGroup,
    LastN,
    Ratio,
    Registry,
    ServingPolicy,
    aggregate,
    col,
    latest,
)
from core.windows import days, hours, minutes
from demo.batch import batch_features
from demo.log import happening, load_log
from demo.oracle import ENTITIES, Oracle, same
from features import REGISTRY
from features.videos import IMPRESSIONS, USER, VIDEO

NOW_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
def events():
    log = load_log(NOW_MS)
    return [*log[:-500], *happening(log[-500:], since=log[:-500], start_ms=NOW_MS, events_per_s=50)]


def test_the_definitions_say_what_the_oracle_counts(events):
    """
    Two programs of which neither knows of the other: the oracle knows the features' names and meanings, the batch their
    definitions.
    """
    oracle, batch = Oracle(events), batch_features(REGISTRY, ENTITIES)
    compared = set()
    for entity, computed in batch.items():
        for key in oracle.keys(entity)[::97]:
            history = oracle.history(entity, key)
            for instant_ms in (NOW_MS, NOW_MS + 12_345_678):
                expected = oracle.expected(entity, key, instant_ms)
                for name, compute in ((name, computed[name]) for name in computed if name in expected):
                    assert same(expected[name], compute(history, instant_ms)), (name, key)
                    compared.add(name)

    assert len(compared) == 52
    assert "video_popularity:impressions_change_1h" not in compared


def test_what_a_definition_does_not_settle_is_left_out():
    """
    A value that is compared with a guess is worse than one that is not compared.
    """
    views = aggregate("views", IMPRESSIONS, Count(), over=(hours(1), days(1)))
    group = FeatureGroup(
        "mine",
        entity=USER,
        owner="me",
        features=(
            views,
            Ratio("self", "views", "views", over=(hours(1),), default=0.0),
            Change("change", "views", over=(hours(1),), against=days(1)),
            latest("tab", IMPRESSIONS, col("tab"), default=-1),
            aggregate("odd", IMPRESSIONS, LastN(col("tab"), n=3), over=(minutes(14),)),
        ),
    )
    other = FeatureGroup("other", entity=Entity("tab", keys=("tab",)), owner="me", features=(views,))
    aging = FeatureGroup(
        "aging",
        entity=VIDEO,
        owner="me",
        features=(latest("tab", IMPRESSIONS, col("tab")),),
        serving=ServingPolicy(max_age=timedelta(hours=1)),
    )

    found = batch_features(Registry((group, other, aging)), ENTITIES)

    assert {entity: sorted(features) for entity, features in found.items()} == {
        "user": ["mine:odd_14m", "mine:self_1h", "mine:tab", "mine:views_1d", "mine:views_1h"],
        "video": [],
        "user_tab": [],
    }
    assert {name: compute([], NOW_MS) for name, compute in found["user"].items()} == {
        "mine:odd_14m": [],
        "mine:self_1h": 0.0,
        "mine:tab": -1,
        "mine:views_1d": 0,
        "mine:views_1h": 0,
    }

"""The stock Feast SDK, from an environment of its own, against a running worker with keys."""

import json
import subprocess
from pathlib import Path

import pytest

from app.endpoints import embedded_topics
from app.worker_process import start_worker
from core.access import Scope, new_key
from features import REGISTRY
from services.embedded import start_embedded
from tests.acceptance.conftest import environment_of, free_port
from tests.feast.environment import feast_python

SDK = Path(__file__).with_name("sdk.py")
DEADLINE_S = 120
PRESENT, NULL_VALUE, NOT_FOUND = 1, 2, 3


@pytest.fixture(scope="module")
def seen():
    """What the SDK saw, once for all tests."""
    python = feast_python()
    services = start_embedded(embedded_topics(REGISTRY))
    key, configured = new_key("sdk", [Scope.READ, Scope.PUSH], None)
    # The SDK cannot read an empty list, whoever serves it.
    own = {"FRESHET_API_KEYS": configured.line, "FRESHET_EMPTY_LISTS": "false"}
    worker = start_worker(
        {**environment_of(services), **own}, web_port=free_port(), log=services.directory / "worker.log"
    )
    try:
        worker.wait_ready()
        ran = subprocess.run(
            [python, "-W", "ignore", SDK, worker.base_url, key],
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert key not in worker.log.read_text() + ran.stderr
        yield json.loads(ran.stdout)
    finally:
        worker.stop()
        services.stop()


def test_what_the_sdk_pushes_arrives_as_events(seen):
    """
    A team's store.push and write_to_online_store go on working; an event that both sent counts once.
    """
    assert seen["counted"] == 3


def test_features_by_list_come_in_the_order_of_rows_and_names(seen):
    """
    A model's input that is filled by position must not mix users up, nor features.
    """
    assert seen["features"]["names"] == ["user_id", "impressions_1h", "ctr_1h", "last_videos_7d", "tab"]
    assert seen["features"]["values"] == {
        "user_id": [31, 999, 24720, 31],
        "impressions_1h": [0, 0, 0, 0],
        "ctr_1h": [0.0] * 4,
        "last_videos_7d": [[1, 0], None, None, [1, 0]],
        "tab": [None] * 4,
    }
    assert seen["features"]["statuses"][1] == [PRESENT, NOT_FOUND, NOT_FOUND, PRESENT]
    assert seen["features"]["statuses"][4] == [NULL_VALUE, NOT_FOUND, NOT_FOUND, NULL_VALUE]
    assert seen["full_names"][1:] == [
        "user_engagement__impressions_1h", "user_engagement__ctr_1h", "user_taste__last_videos_7d", "user_taste__tab",
    ]  # fmt: skip


def test_a_feature_service_is_read_whole(seen):
    """
    A model names its service alone.
    """
    values = seen["service"]["values"]

    assert list(values) == seen["service"]["names"]
    assert {"clicks_1h", "ctr_7d", "last_videos_7d", "tab"} <= set(values)
    assert values["user_id"] == [31, 999, 24720, 31]
    assert values["clicks_7d"] == [3, 0, 0, 3]


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        ("unknown_view", "FeatureViewNotFoundException", "'no_such_view' does not exist"),
        ("unknown_service", "FeatureServiceNotFoundException", "'no_such_service' does not exist"),
        ("refused_key", "FeastPermissionError", "none that this worker knows"),
        ("unknown_feature", "RuntimeError", "400"),
        ("several_sources", "RuntimeError", "impressions, clicks, conversions"),
    ],
)
def test_mistakes_are_raised_as_the_sdk_raises_them(seen, case, kind, words):
    """
    Clients catch Feast's own exceptions; a server error instead would be tried four times and lose its message.
    """
    assert seen[case][0] == kind
    assert words in seen[case][1]

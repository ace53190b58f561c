"""A running worker: bad input, good input between it, health, roles in processes of their own."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import count
from pathlib import Path

import psutil
import pytest

from app.dead_letters import list_dead_letters
from app.endpoints import embedded_topics
from app.kafka.access import KafkaAccess
from app.worker_process import WorkerProcess, start_worker
from demo.figures import read_figures
from features import REGISTRY
from services.embedded import start_embedded
from tests.acceptance.conftest import environment_of, free_port, http, new_sender, read_values, start, until
from tests.acceptance.kafka import now_ms

FRESHET = Path(sys.executable).with_name("freshet")
_ids = count(1)


def event(user: int, **more: object) -> dict[str, object]:
    """An impression, and by its fields a click too."""
    return {
        "event_id": f"event-{next(_ids)}", "time_ms": now_ms(), "user_id": user, "video_id": 70_000 + user, "tab": 1,
        "watch_ms": 2_000, "duration_ms": 4_000, **more,
    }  # fmt: skip


def encoded(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode()


def without(fields: dict[str, object], name: str) -> bytes:
    return encoded({key: value for key, value in fields.items() if key != name})


def with_raw(fields: dict[str, object], name: str, raw: bytes) -> bytes:
    """An event in which one value is these bytes."""
    return encoded({**fields, name: "@"}).replace(b'"@"', raw)


def bad_impressions(user: int) -> dict[str, tuple[bytes | None, str]]:
    """What producers send by mistake, with the reason under which it is found again."""
    good = event(user)
    digits, nested = b"9" * 5_000, b"[" * 100_000 + b"]" * 100_000
    return {
        "not JSON": (b"<xml/>", "malformed"),
        "half of it": (encoded(good)[:40], "malformed"),
        "empty": (b"", "malformed"),
        "a tombstone": (None, "malformed"),
        "not an object": (b"[1]", "malformed"),
        "bytes that are no UTF-8": (with_raw(good, "event_id", b'"\xff\xfe"'), "malformed"),
        "a wrong type": (encoded({**good, "user_id": str(user)}), "malformed"),
        "a fraction for an integer": (encoded({**good, "watch_ms": 1.5}), "malformed"),
        "null": (encoded({**good, "video_id": None}), "malformed"),
        "a missing field": (without(good, "tab"), "malformed"),
        "NaN": (with_raw(good, "watch_ms", b"NaN"), "malformed"),
        "infinity": (with_raw(good, "watch_ms", b"-Infinity"), "malformed"),
        "a number beyond all floats": (with_raw(good, "watch_ms", b"1e999"), "malformed"),
        "5,000 digits": (with_raw(good, "watch_ms", digits), "malformed"),
        "5,000 digits as a key": (with_raw(good, "user_id", digits), "malformed"),
        "an integer of 65 bits": (encoded({**good, "user_id": 2**64}), "malformed"),
        "a negative id": (encoded({**good, "user_id": -1}), "malformed"),
        "a lone surrogate": (with_raw(good, "event_id", b'"\\ud800"'), "malformed"),
        "an empty event id": (encoded({**good, "event_id": ""}), "malformed"),
        "an event id over the limit": (encoded({**good, "event_id": "x" * 129}), "malformed"),
        "an event id of too many bytes": (encoded({**good, "event_id": "é" * 100}), "malformed"),
        "deep nesting": (with_raw(good, "tab", nested), "malformed"),
        "deep nesting in a field that nobody knows": (with_raw(good, "more", nested), "malformed"),
        "a time that is none": (encoded({**good, "time_ms": 2**60}), "malformed"),
        "a record over the limit": (encoded({**good, "more": "x" * 1_100_000}), "too_large"),
        "a time in the future": (encoded({**good, "time_ms": now_ms() + 60_000}), "future"),
        "a time that is too long ago": (encoded({**good, "time_ms": now_ms() - 2 * 3_600_000}), "late"),
    }


def test_bad_events_are_buried_and_the_good_ones_between_them_counted(worker, services, sender):
    """
    One producer's mistake must not stop a partition, nor lose a neighbour's event: every source offset is in exactly
    one set, and what was buried can be mended from what was kept of it.
    """
    user, before = 11, read_figures(worker.base_url)
    bad = bad_impressions(user)
    good: dict[tuple[str, int, int], bytes] = {}
    expected: dict[tuple[str, int, int], tuple[str, bytes]] = {}
    twice = encoded(event(user))
    for number, (payload, reason) in enumerate(bad.values()):
        partition = number % 3
        mine = encoded(event(user))
        places = sender.send("impressions", mine, payload, twice, partition=partition)
        good |= {places[0]: mine, places[2]: twice}
        expected[places[1]] = (reason, payload or b"")

    after = until(
        lambda: (figures := read_figures(worker.base_url)).accounted - before.accounted == 3 * len(bad) and figures,
        "every event is accounted for",
    )
    letters = list_dead_letters(KafkaAccess((services.broker,)), reason="", limit=10_000)
    letters = [one for one in letters if one["topic"] == "impressions"]
    found = {(one["topic"], one["partition"], one["offset"]): one for one in letters}

    assert len(letters) == len(found)
    assert {place: one["reason"] for place, one in found.items()} == {
        place: reason for place, (reason, _) in expected.items()
    }
    assert not set(found) & set(good)
    for place, (_, payload) in expected.items():
        kept = found[place]["payload"]
        assert kept == payload.decode(errors="backslashreplace")[: len(kept)]
        assert len(kept) > 800_000 or len(kept) == len(payload.decode(errors="backslashreplace"))
        assert found[place]["detail"]
        assert abs(found[place]["record_time_ms"] - now_ms()) < 120_000
    reasons = Counter(reason for reason, _ in expected.values())
    assert after.dispatched - before.dispatched == len(good)
    assert after.late - before.late == reasons["late"] == 1
    assert after.dead_letters - before.dead_letters == len(bad) - 1
    for entity in ("user", "video", "user_tab"):
        place = ("impressions", entity)
        # Those that were sent once, and the one that was sent each time.
        assert after.applied[place] - before.applied.get(place, 0) == len(bad) + 1
        assert after.duplicates[place] - before.duplicates.get(place, 0) == len(bad) - 1
    until(
        lambda: read_values(
            worker.base_url, {"user_id": [user]}, "user_engagement:impressions_1h", "user_taste:impressions_all"
        ) == [[len(bad) + 1], [len(bad) + 1]],
        "the good events are served",
    )  # fmt: skip
    assert worker.is_alive


def test_dead_letters_are_listed_by_reason_newest_last(worker, services, sender):
    """
    Whoever mends events looks for one reason, at the newest first mistake of it.
    """
    before = len(list_dead_letters(KafkaAccess((services.broker,)), reason="future", limit=10_000))
    times = [now_ms() + 100_000 + number for number in range(3)]
    places = sender.send("clicks", *(encoded(event(12, time_ms=time_ms)) for time_ms in times), partition=1)

    letters = until(
        lambda: (
            len(found := list_dead_letters(KafkaAccess((services.broker,)), reason="future", limit=10_000))
            == before + 3
            and found
        ),
        "three dead letters more",
    )
    newest = list_dead_letters(KafkaAccess((services.broker,)), reason="future", limit=2)

    assert [(one["topic"], one["partition"], one["offset"]) for one in letters[-3:]] == places
    assert newest == letters[-2:]
    assert list_dead_letters(KafkaAccess((services.broker,)), reason="no such reason", limit=5) == []


def test_an_event_sent_by_hand_is_read_over_http(worker, services, tmp_path):
    """
    What the README promises a newcomer: send an event, read it with curl.
    """
    (tmp_path / ".freshet").mkdir()
    runtime = {"broker": services.broker, "base_url": worker.base_url, "pid": os.getpid()}
    (tmp_path / ".freshet" / "running.json").write_text(json.dumps(runtime))
    fields = event(13)
    del fields["time_ms"]
    lines = f"{json.dumps(event(13))}\n\n{json.dumps(event(13))}\n"

    one, more = (
        subprocess.run(
            [FRESHET, "send", "impressions", argument],
            cwd=tmp_path, input=lines, capture_output=True, text=True, timeout=30, check=False,
        )
        for argument in (json.dumps(fields), "-")
    )  # fmt: skip

    assert (one.returncode, one.stdout, one.stderr) == (0, "1 sent to impressions\n", "")
    assert (more.returncode, more.stdout, more.stderr) == (0, "2 sent to impressions\n", "")
    until(
        lambda: read_values(worker.base_url, {"user_id": [13]}, "user_engagement:impressions_1h") == [[3]],
        "three impressions are counted",
    )


def test_an_event_pushed_over_http_is_counted_once_however_often_it_is_sent(worker):
    """
    A team without Kafka sends to the worker it reads from; a repetition after a lost answer is no second click.
    """
    df = {"user_id": [14, 14], "video_id": [1, 2], "tab": [0, 0], "time_ms": [now_ms()] * 2}

    answers = [http(f"{worker.base_url}/push", {"push_source_name": "clicks", "df": df}) for _ in range(2)]
    refused, told = http(f"{worker.base_url}/push", {"push_source_name": "clicks", "df": {**df, "tab": ["x", 0]}})

    assert answers == [(200, ""), (200, "")]
    assert (refused, told["rows"][0]["row"]) == (422, 0)
    until(
        lambda: read_values(worker.base_url, {"user_id": [14]}, "user_engagement:clicks_1h") == [[2]],
        "two clicks are counted",
    )
    until(
        lambda: read_figures(worker.base_url).duplicates.get(("clicks", "user"), 0) >= 2,
        "the repetition is told for what it is",
    )


def test_a_worker_tells_of_its_health_and_of_nothing_else(worker):
    """
    Orchestrator and Prometheus find what they ask for, a browser our page; Faust's own would show tables to anybody.
    """
    statuses = {
        path: http(f"{worker.base_url}{path}")[0]
        for path in ("/health", "/ready", "/ready/ingest", "/metrics", "/", "/table", "/table/", "/router", "/router/",
                     "/stats", "/graph", "/production_index")
    }  # fmt: skip
    _, facts = http(f"{worker.base_url}/ready/ingest")

    found = {path for path, status in statuses.items() if status == 200}
    assert found == {"/", "/health", "/ready", "/ready/ingest", "/metrics"}
    assert {statuses[path] for path in statuses if path not in found} == {404}
    assert facts["ready"] is True
    partitions = sum(embedded_topics(REGISTRY)[topic] for topic in REGISTRY.sources)
    assert facts["partitions"] == partitions + sum(entity.partitions for entity in REGISTRY.entities.values())


def test_nothing_of_a_worker_listens_beyond_loopback(worker):
    """
    Without keys there is no authentication, so nobody else's machine may reach it.
    """
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(worker.process.pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert listening == ["127.0.0.1"]


def test_split_roles_serve_what_one_worker_would():
    """
    In production each role is a process of its own, and scaled for itself; together they lose and double nothing.
    """
    services = start_embedded(embedded_topics(REGISTRY))
    workers = {}
    try:
        # One of them applies the definitions; the others find them applied.
        for roles in (["aggregator"], ["dispatcher", "serving"]):
            workers |= {role: start(services, role) for role in roles}
            for role in roles:
                workers[role].wait_ready()
        sender = new_sender(services)
        for partition in range(3):
            sender.send("impressions", *(encoded(event(21)) for _ in range(50)), partition=partition)

        counted = until(
            lambda: read_values(
                workers["serving"].base_url, {"user_id": [21, 22]}, "user_engagement:impressions_1h"
            ) == [[150, 0]],
            "150 impressions are served",
        )  # fmt: skip

        assert counted
        request = {"entities": {"user_id": [21]}, "feature_service": "home_feed"}
        asked = {role: http(f"{one.base_url}/get-online-features", request)[0] for role, one in workers.items()}
        assert asked == {"aggregator": 404, "dispatcher": 404, "serving": 200}
        facts = {role: http(f"{one.base_url}/ready/ingest")[1] for role, one in workers.items()}
        assert {role: one["role"] for role, one in facts.items()} == {role: role for role in workers}
        assert facts["aggregator"]["partitions"] == 24
        assert facts["dispatcher"]["partitions"] == 12
        assert _peers(workers["dispatcher"].process.pid) >= {int(services.broker.rpartition(":")[2])}
        assert int(services.broker.rpartition(":")[2]) not in _peers(workers["serving"].process.pid)
        click = {"user_id": [23], "video_id": [1], "tab": [0], "time_ms": [now_ms()]}
        pushed = http(f"{workers['serving'].base_url}/push", {"push_source_name": "clicks", "df": click})
        assert pushed == (200, "")
        until(
            lambda: read_values(
                workers["serving"].base_url, {"user_id": [23]}, "user_engagement:clicks_1h"
            ) == [[1]],
            "a click that was pushed to a serving worker is served",
        )  # fmt: skip
    finally:
        for one in workers.values():
            one.process.terminate()
        for one in workers.values():
            one.stop()
        services.stop()


def _peers(pid: int) -> set[int]:
    """Return the ports that a process is connected to."""
    return {peer.raddr.port for peer in psutil.Process(pid).net_connections(kind="inet") if peer.raddr}


def test_where_browsers_refuse_the_port_the_page_is_at_another(services):
    """
    Feast's port is one of those that no browser opens: the page that the README names could not be looked at.
    """
    page_port = free_port()
    started = start_worker(
        {**environment_of(services, "serving"), "FRESHET_PAGE_PORT": str(page_port)},
        web_port=6697,
        log=services.directory / "refused.log",
    )
    try:
        started.wait_ready()
        status, page = http(f"http://127.0.0.1:{page_port}/")
        assert (status, page) == http(f"{started.base_url}/")
        assert (status, "<title>Freshet" in page) == (200, True)
    finally:
        started.stop()


def test_each_worker_at_a_shared_port_has_one_of_its_own_where_its_metrics_are(services):
    """
    Each scrape of a shared port met another worker, so counters fell back; and the port that was set opened nothing.
    """
    shared, own = free_port(), [free_port(), free_port()]
    workers = [
        start_worker(
            {**environment_of(services, "serving"), "FRESHET_SHARE_PORT": "true", "FRESHET_PAGE_PORT": str(port)},
            web_port=shared,
            log=services.directory / f"shared-{port}.log",
        )
        for port in own
    ]
    try:
        for worker, port in zip(workers, own, strict=True):
            WorkerProcess(worker.process, f"http://127.0.0.1:{port}", worker.log).wait_ready()
        before = [_requests(port) for port in own]
        for _ in range(3):
            assert http(f"http://127.0.0.1:{own[1]}/get-online-features", _ONE_READ)[0] == 200

        assert [after - was for after, was in zip(map(_requests, own), before, strict=True)] == [0, 3]
        assert http(f"http://127.0.0.1:{shared}/ready")[0] == 200
    finally:
        for worker in workers:
            worker.stop()


_ONE_READ = {"entities": {"user_id": [1]}, "features": ["user_engagement:clicks_1h"]}


def _requests(port: int) -> int:
    _, text = http(f"http://127.0.0.1:{port}/metrics")
    told = re.search(r'^freshet_requests_total\{status="200"\} (\d+)', text, re.MULTILINE)
    return int(told[1]) if told else 0


@pytest.mark.parametrize(("setting", "words"), [
    ("FRESHET_WEB_PORT", "no worker can listen at 127.0.0.1:"), ("FRESHET_PAGE_PORT", "give each worker one of its own"),
])  # fmt: skip
def test_a_port_that_is_taken_is_told_in_one_sentence(services, worker, setting, words):
    """
    Beside a demo that still runs the tutorial's worker ended in forty lines, and the demo answered in its place.
    """
    taken = int(worker.base_url.rpartition(":")[2])
    second = start_worker(
        {**environment_of(services, "serving"), setting: str(taken)},
        web_port=taken if setting == "FRESHET_WEB_PORT" else free_port(),
        log=services.directory / "taken.log",
    )
    second.wait_end(deadline_s=30)

    said = second.log.read_text()
    assert second.process.returncode == 1
    assert words in said
    assert setting in said
    assert "Traceback" not in said


def test_no_option_opens_a_worker_without_keys(tmp_path):
    """
    Settings refuse it; an option of Faust's own command went past them, and everything was open to everybody.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "app.worker", "worker", "--web-bind", "0.0.0.0"],
        cwd=tmp_path,
        env={**os.environ, "FRESHET_WEB_PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 1
    assert "nothing listens beyond loopback without keys" in ran.stderr


BROKEN = """
from core.definitions import Count, FeatureGroup, Registry, aggregate, col
from core.windows import minutes
from features.videos import IMPRESSIONS, USER

REGISTRY = Registry(groups=(FeatureGroup("broken", entity=USER, owner="tests", features=(
    aggregate("brief", IMPRESSIONS, Count(), over=(minutes(1),)),
    aggregate("blind", IMPRESSIONS, Count(), over=(minutes(5),), where=col("colour") == "red"),
)),))
"""


@pytest.mark.parametrize(
    ("settings", "words", "lines"),
    [
        ({"FRESHET_WEB_HOST": "0.0.0.0"}, ["FRESHET_WEB_HOST", "nothing listens beyond loopback"], 1),
        ({"FRESHET_REGISTRY": "broken:REGISTRY"}, ["2 problems", "feature brief", "feature blind", "colour"], 3),
        ({"FRESHET_BROKER": "127.0.0.1:1"}, ["FRESHET_REDIS", "FRESHET_RECORD", "must be set too"], 1),
        (
            {"FRESHET_BROKER": "127.0.0.1:1", "FRESHET_REDIS": "none", "FRESHET_RECORD": "memory"},
            ["was never applied", "freshet apply"],
            1,
        ),
        (
            {"FRESHET_BROKER": "127.0.0.1:1", "FRESHET_REDIS": "redis://:s3cret@{redis}", "FRESHET_RECORD": "memory"},
            ["FRESHET_REDIS", "give the right user and password"],
            1,
        ),
    ],
)
def test_a_worker_that_cannot_work_says_why_and_ends(tmp_path, redis_server, settings, words, lines):
    """
    What an operator finds in the log of a worker that does not start is the reason, not a trace through Faust.
    """
    (tmp_path / "broken.py").write_text(BROKEN)
    settings = {name: value.format(redis=redis_server.url.removeprefix("redis://")) for name, value in settings.items()}

    ran = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "app.worker", "worker"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    told = ran.stderr[ran.stderr.index("freshet: ") :]
    assert ran.returncode == 1
    assert [word for word in words if word not in told] == []
    assert len(told.strip().splitlines()) == lines
    assert "Traceback" not in ran.stdout + ran.stderr
    assert "s3cret" not in ran.stdout + ran.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["broken.py"]

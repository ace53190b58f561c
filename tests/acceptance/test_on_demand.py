"""On-demand sources in a running worker: what may not be stored is in no store, topic, file, log or metric."""

from itertools import chain
from pathlib import Path

import redis
from confluent_kafka.admin import AdminClient

from app.worker_process import start_worker
from core.windows import seconds
from tests.acceptance.conftest import environment_of, free_port, http, until
from tests.acceptance.test_worker import event
from tests.chaos.log import Logs
from tests.on_demand_kit import ANGRY_USER, PRIVATE, SEEN

USER = 1
STORED = f"user#i{USER}".encode()


def test_what_a_source_fetches_is_stored_nowhere(services, tmp_path):
    """
    A bank may tell a score, and may forbid to keep it. So everything that a worker has written is searched: for the
    score that was served, computed with, explained and failed with; and for the stored row, to see that the search
    finds what is there.
    """
    reads_log = tmp_path / "reads.csv"
    log = tmp_path / "worker.log"
    more = {
        "FRESHET_REGISTRY": "tests.on_demand_kit:REGISTRY",
        "FRESHET_READS_LOG": str(reads_log),
        "FRESHET_READS_LOG_SHARE": "1",
    }
    worker = start_worker(environment_of(services) | more, web_port=free_port(), log=log)
    try:
        worker.wait_ready()
        frame = {name: [value] for name, value in event(USER).items()}
        assert http(f"{worker.base_url}/push", {"push_source_name": "impressions", "df": frame})[0] == 200
        until(lambda: read(worker.base_url, SEEN)[0] == [1], "the event is readable")
        until(lambda: read(worker.base_url, "risk:band")[0] == [f"{PRIVATE}-{USER}"], "the source is asked")

        assert read(worker.base_url, "offers:risk_per_view") == [[0.1]]
        explained = http(f"{worker.base_url}/explain?feature=risk:band&user_id={USER}")
        assert explained[1]["value"] == f"{PRIVATE}-{USER}"
        angry = {"entities": {"user_id": [ANGRY_USER]}, "features": ["risk:band"]}
        status, answer = http(f"{worker.base_url}/get-online-features", angry)
        assert (status, answer["results"][1]["statuses"]) == (200, ["INVALID"])

        metrics = http(f"{worker.base_url}/metrics")[1].encode()
        kept = {
            "Redis": b"\n".join(redis_bytes(services.redis_url)),
            "Kafka": b"\n".join(kafka_bytes(services.broker)),
            "the record": b"\n".join(path.read_bytes() for path in services.directory.glob("record*")),
        }
    finally:
        worker.stop()
    assert {place: STORED in found for place, found in kept.items()} == dict.fromkeys(kept, True)
    kept |= {
        "the sample of reads": reads_log.read_bytes(),
        "the log": log.read_bytes(),
        "metrics": metrics,
        "other files": other_files(services.directory),
    }
    assert b"user_engagement" in kept["the sample of reads"]
    assert b"on-demand feature failed" in kept["the log"]
    assert b'feature="risk:band"' in kept["metrics"]
    assert [place for place, found in kept.items() if PRIVATE.encode() in found] == []


def read(base_url: str, *features: str) -> list[list[object]]:
    request = {"entities": {"user_id": [USER]}, "features": list(features)}
    status, answer = http(f"{base_url}/get-online-features", request)
    assert status == 200, answer
    return [result["values"] for result in answer["results"]][1:]


def redis_bytes(url: str) -> list[bytes]:
    found = []
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(count=1_000):
            kind = client.type(key)
            assert kind in (b"string", b"hash"), kind
            found += [key] + ([client.get(key)] if kind == b"string" else chain(*client.hgetall(key).items()))
    return found


def kafka_bytes(broker: str) -> list[bytes]:
    topics = AdminClient({"bootstrap.servers": broker}).list_topics(timeout=seconds(10).total_seconds()).topics
    logs = Logs(broker, [topic for topic in topics if not topic.startswith("__")])
    try:
        return [part for message in logs.read() for part in (message.key() or b"", message.value() or b"")]
    finally:
        logs.close()


def other_files(directory: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())

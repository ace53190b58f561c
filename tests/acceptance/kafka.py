"""Kafka as tests of Freshet want it: its topics made anew, and commands run on it."""

import time
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from app.cli import cli
from app.kafka.access import KafkaAccess, kafka_access
from app.kafka.admin import KafkaAdmin
from app.kafka.groups import group_of
from app.kafka.topics import plan_topics
from app.settings import Role, load_settings
from app.worker_process import WorkerProcess, start_worker
from features import REGISTRY
from tests.acceptance.conftest import free_port, until

BUSY_S = 120.0
SOURCE_PARTITIONS = 4


def make_topics(bootstrap: str) -> None:
    """Make Freshet's topics, as ``freshet topics create --sources`` does."""
    plans = plan_topics(REGISTRY)
    KafkaAdmin(KafkaAccess((bootstrap,))).create(
        plan.new(replicas=1, partitions=SOURCE_PARTITIONS if plan.name in REGISTRY.sources else 1) for plan in plans
    )


def clear_topics(bootstrap: str, *names: str) -> None:
    """Delete topics, by default all of Freshet's, with what groups have committed of them; wait until nobody reads."""
    admin, client = KafkaAdmin(KafkaAccess((bootstrap,))), AdminClient({"bootstrap.servers": bootstrap})
    ours = set(names or (plan.name for plan in plan_topics(REGISTRY)))
    # One that was killed stays until its session is over.
    until(lambda: not admin.members(map(group_of, Role)), "no worker is a member", deadline_s=BUSY_S)
    left = ours & set(client.list_topics(timeout=30).topics)
    if left:
        for deleted in client.delete_topics(list(left)).values():
            deleted.result(30)
    until(lambda: not ours & set(client.list_topics(timeout=30).topics), "the topics are gone", deadline_s=BUSY_S)


def access_of(settings: Mapping[str, str]) -> KafkaAccess:
    """Return the access that settings of a worker describe."""
    names = {name.removeprefix("FRESHET_").lower(): value for name, value in settings.items()}
    return kafka_access(load_settings(**names))


def freshet(settings: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run a command in this process; return its status and what it printed, or its error's message."""
    done = CliRunner().invoke(cli, list(arguments), env=dict(settings))
    told = "" if done.exception is None or isinstance(done.exception, SystemExit) else str(done.exception)
    return done.exit_code, done.output + told


def start_on(settings: Mapping[str, str], directory: Path, **more: str) -> WorkerProcess:
    """Start a worker that logs to a file of its own in a directory; it is not ready yet."""
    environment = {"FRESHET_REDIS": "none", "FRESHET_APPLY": "true", **settings, **more}
    environment.setdefault("FRESHET_RECORD", f"sqlite:///{directory / 'record.sqlite'}")
    number = len(list(directory.glob("worker*.log")))
    return start_worker(environment, web_port=free_port(), log=directory / f"worker{number}.log")


def last_words(worker: WorkerProcess) -> str:
    """Return what a worker said that ends by itself."""
    until(lambda: not worker.is_alive, "the worker has ended", deadline_s=BUSY_S)
    said = worker.log.read_text()
    return said[said.index("freshet: ") :].strip()


def now_ms() -> int:
    return time.time_ns() // 1_000_000

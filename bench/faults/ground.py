"""A platform to be hurt: one worker that takes events in, some that only serve, and a Redis that can be killed."""

import contextlib
import signal
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
from prometheus_client.parser import text_string_to_metric_families

from app.endpoints import embedded_topics
from app.settings import Role
from app.worker_process import WorkerProcess, start_worker
from bench.serving.domain import REGISTRY
from bench.serving.servers import push_rows
from services.embedded import EmbeddedServices, start_embedded
from services.redis_server import RedisProcess, start_redis
from services.server_process import free_ports

_READY_S = 60.0


@dataclass(slots=True)
class Ground:
    """What runs.

    Attributes:
        intake: The worker that takes events in; it serves too, from its own copies.
        serving: Workers that only serve, each read from Redis.
    """

    services: EmbeddedServices
    redis: RedisProcess
    directory: Path
    intake: WorkerProcess
    serving: list[WorkerProcess] = field(default_factory=list)

    def loads(self) -> float:
        """Return how many rows the serving workers have read in the record."""
        return sum(total(worker, "freshet_tier_keys_total", tier="sqlite", outcome="hit") for worker in self.serving)

    def pause_redis(self) -> None:
        """Let Redis answer nothing, and keep its connections."""
        self.redis.process.send_signal(signal.SIGSTOP)

    def resume_redis(self) -> None:
        """Let it answer again."""
        self.redis.process.send_signal(signal.SIGCONT)

    def kill_redis(self) -> None:
        """End it at once."""
        self.redis.process.kill()
        self.redis.process.wait()

    def restart_redis(self) -> None:
        """Start it anew, empty."""
        self.redis = start_redis(self.directory, port=self.redis.port)

    def client(self) -> redis.Redis:
        """Return a client of Redis."""
        return redis.Redis.from_url(self.redis.url)


@contextlib.contextmanager
def open_ground(*, serving: int) -> Iterator[Ground]:
    """Start everything, with the rows in place; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="freshet-bench-") as name, contextlib.ExitStack() as opened:
        directory = Path(name)
        services = start_embedded(embedded_topics(REGISTRY))
        opened.callback(services.stop)
        server = start_redis(directory)
        intake = _start(services, server, directory, Role.ALL, 0)
        opened.callback(intake.stop)
        intake.wait_ready(deadline_s=_READY_S)
        ground = Ground(services, server, directory, intake)
        opened.callback(lambda: (ground.resume_redis(), ground.redis.stop()))
        push_rows(intake.base_url)
        for number in range(serving):
            worker = _start(services, server, directory, Role.SERVING, number)
            ground.serving.append(worker)
            opened.callback(worker.stop)
        for worker in ground.serving:
            worker.wait_ready(deadline_s=_READY_S)
        yield ground


def _start(services: EmbeddedServices, server: RedisProcess, directory: Path, role: Role, number: int) -> WorkerProcess:
    (port,) = free_ports(1)
    settings = {
        "FRESHET_BROKER": services.broker,
        "FRESHET_REDIS": server.url,
        "FRESHET_RECORD": f"sqlite:///{services.record_path}",
        "FRESHET_REGISTRY": "bench.serving.domain:REGISTRY",
        "FRESHET_ROLE": role.value,
        "FRESHET_APPLY": "true",
        "FRESHET_PAGE_PORT": "0",
    }
    return start_worker(settings, web_port=port, log=directory / f"{role.value}-{number}.log")


def total(worker: WorkerProcess, name: str, **labels: str) -> float:
    """Return the sum of a worker's samples of a metric that have these labels."""
    with urllib.request.urlopen(f"{worker.base_url}/metrics", timeout=30) as answer:  # noqa: S310  # loopback
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def ports(workers: Sequence[WorkerProcess]) -> list[int]:
    """Return where workers listen."""
    return [int(worker.base_url.rpartition(":")[2]) for worker in workers]

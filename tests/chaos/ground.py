"""The ground of a run: three brokers, Redis and DynamoDB Local, each behind a proxy, and the topics and table in them."""

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from app.kafka.access import KafkaAccess
from app.kafka.admin import KafkaAdmin
from app.kafka.topics import plan_topics
from services.dynamodb_local import DynamoDBLocal, start_dynamodb_local
from services.kafka import KafkaCluster, start_kafka
from services.leash import Leash
from services.redis_server import RedisProcess, start_redis
from stores.dynamodb_place import TablePlace
from stores.dynamodb_table import create_table
from tests.chaos.domain import PARTITIONS, REGISTRY
from tests.chaos.proxy import Loop, Proxy
from tests.chaos.weather import WeatherProxy
from tests.dynamodb_kit import REGION, Tables, open_tables
from tests.dynamodb_proxy import open_proxy

CLIENTS = "CLIENTS"
"""Name of the listener that workers use, behind a proxy; brokers talk to each other at another."""
TABLE = "chaos"


@dataclass
class Ground:
    """Servers and proxies of a run.

    Attributes:
        brokers: Proxies by broker number.
        redis: The server; a run replaces it when it has killed it.
        weather: Between DynamoDB and its proxy.
    """

    directory: Path
    loop: Loop
    leash: Leash
    kafka: KafkaCluster
    brokers: Mapping[int, Proxy]
    redis: RedisProcess
    redis_proxy: Proxy
    dynamodb: DynamoDBLocal
    dynamodb_proxy: Proxy
    weather: WeatherProxy
    tables: Tables

    @property
    def access(self) -> KafkaAccess:
        """Kafka without a proxy, for whoever looks on."""
        return KafkaAccess(tuple(self.kafka.bootstrap.split(",")))

    @property
    def settings(self) -> dict[str, str]:
        """Return the settings of workers."""
        endpoint = f"http://127.0.0.1:{self.dynamodb_proxy.port}"
        return {
            "FRESHET_BROKER": ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.brokers.values()),
            "FRESHET_REDIS": f"redis://127.0.0.1:{self.redis_proxy.port}/0",
            "FRESHET_RECORD": f"dynamodb://{TABLE}?{urlencode({'region': REGION, 'endpoint': endpoint}, safe=':/')}",
            "FRESHET_REGISTRY": "tests.chaos.domain:REGISTRY",
            "FRESHET_APPLY": "true",
        }

    @property
    def place(self) -> TablePlace:
        """The record without a proxy."""
        return TablePlace(TABLE, REGION, self.dynamodb.url)

    def restart_redis(self) -> None:
        """Start a killed Redis again where it was, empty."""
        self.redis.stop()
        self.redis = start_redis(self.directory / "redis", port=self.redis.port, leash=self.leash)


@contextmanager
def open_ground(directory: Path, *, brokers: int) -> Iterator[Ground]:
    """Start everything, and end it all."""
    with ExitStack() as ends:
        loop, leash, tables = Loop(), ends.enter_context(Leash()), ends.enter_context(open_tables(""))
        ends.callback(loop.stop)
        for name in ("kafka", "redis", "dynamodb"):
            (directory / name).mkdir()
        with ThreadPoolExecutor(2) as pool:
            starting = pool.submit(start_dynamodb_local, directory / "dynamodb", leash=leash)
            kafka, proxies = _start_kafka(directory / "kafka", brokers, leash, loop)
            ends.callback(kafka.stop)
            dynamodb = starting.result()
            ends.callback(dynamodb.stop)
        weather = loop.enter(open_proxy(dynamodb.url, WeatherProxy))
        redis = start_redis(directory / "redis", leash=leash)
        redis_proxy, dynamodb_proxy = Proxy(redis.port), Proxy(urlsplit(weather.url).port)
        for proxy in (redis_proxy, dynamodb_proxy):
            loop.enter(proxy.listening())
        ground = Ground(
            directory, loop, leash, kafka, proxies, redis, redis_proxy, dynamodb, dynamodb_proxy, weather, tables
        )
        ends.callback(lambda: ground.redis.stop())  # noqa: PLW0108  # another server by then
        _make_topics(ground.access, replicas=brokers)
        asyncio.run(_make_table(ground))
        yield ground


def _start_kafka(directory: Path, brokers: int, leash: Leash, loop: Loop) -> tuple[KafkaCluster, dict[int, Proxy]]:
    """Start a cluster whose brokers tell clients the addresses of proxies."""
    cluster = start_kafka(
        directory,
        brokers=brokers,
        protocols=(CLIENTS,),
        properties={
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,{CLIENTS}:PLAINTEXT",
            # Of a broker that was killed or stopped another one takes over this soon.
            "broker.session.timeout.ms": "6000",
            "broker.heartbeat.interval.ms": "1000",
            "group.initial.rebalance.delay.ms": "0",
        },
        leash=leash,
    )
    proxies = {broker.node_id: Proxy(broker.ports[CLIENTS]) for broker in cluster.brokers}
    for broker in cluster.brokers:
        loop.enter(proxies[broker.node_id].listening())
        broker.kill()
        path = directory / f"kafka-{broker.node_id}" / "server.properties"
        _advertise(path, broker.ports[CLIENTS], proxies[broker.node_id].port)
    with ThreadPoolExecutor(brokers) as pool:
        list(pool.map(lambda broker: broker.start(), cluster.brokers))
    return cluster, proxies


def _advertise(path: Path, port: int, proxy_port: int) -> None:
    lines = path.read_text().splitlines()
    place = f"{CLIENTS}://127.0.0.1:"
    path.write_text(
        "".join(
            (line.replace(f"{place}{port}", f"{place}{proxy_port}") if line.startswith("advertised") else line) + "\n"
            for line in lines
        )
    )


def _make_topics(access: KafkaAccess, *, replicas: int) -> None:
    KafkaAdmin(access).create(
        plan.new(replicas=replicas, partitions=PARTITIONS if plan.name in REGISTRY.sources else 1)
        for plan in plan_topics(REGISTRY)
    )


async def _make_table(ground: Ground) -> None:
    calls = ground.tables.open(ground.place)
    await create_table(calls)
    await calls.close()

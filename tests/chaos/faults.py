"""Faults: what happens to servers, networks, clocks and workers. Each one is begun, lasts a while and is healed.

To add one, write the method and list it in ``KINDS``.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import redis
from confluent_kafka import ElectionType, KafkaException
from confluent_kafka.admin import AdminClient

from services.kafka import KafkaBroker
from tests.chaos.checks import Checks
from tests.chaos.findings import Findings
from tests.chaos.fleet import Fleet, Slot
from tests.chaos.ground import Ground
from tests.chaos.proxy import Proxy
from tests.chaos.weather import Weather, failing, partial, throttling

KILLED_AFTER_SIGTERM = "killed after SIGTERM"
SESSION_S = 8.0
_SKEW_MS = 300_000
_SHORT_S, _LONG_S = (3.0, 8.0), (SESSION_S + 2, SESSION_S + 6)
_STOP_S = 45.0
_WHOLE_S = 60.0
_TOLD_S = 1.0
_POLL_S = 0.1


@dataclass
class Faults:
    """Injects one fault after the other.

    Attributes:
        spare: A place for workers that join and leave.
        active: What is broken now.
    """

    ground: Ground
    fleet: Fleet
    checks: Checks
    findings: Findings
    spare: Slot
    chance: random.Random
    active: str = ""
    _bag: list[str] = field(default_factory=list)
    _joined: int = 0

    async def inject_one(self) -> None:
        """Inject the next fault and heal it."""
        if not self._bag:
            self._bag = list(KINDS)
            self.chance.shuffle(self._bag)
        self.active = self._bag.pop()
        began = time.monotonic()
        try:
            await KINDS[self.active](self)
            self.findings.faults[self.active] += 1
            print(f"{self.active} for {time.monotonic() - began:.1f} s", flush=True)
        finally:
            self.active = ""

    async def _last(self, bounds: tuple[float, float] = _SHORT_S) -> None:
        await asyncio.sleep(self.chance.uniform(*bounds))

    # -- workers

    async def _victim(self) -> Slot:
        while not self.fleet.alive:  # noqa: ASYNC110  # a process tells nobody that it lives
            await asyncio.sleep(_POLL_S)
        return self.chance.choice(self.fleet.alive)

    async def sigterm(self) -> None:
        """A deploy: a worker is asked to end."""
        await self.end(await self._victim())

    async def end(self, slot: Slot) -> None:
        """Ask a worker to end, and end it if it does not."""
        worker, ends = slot.worker, time.monotonic() + _STOP_S
        if worker is None:
            return
        self.fleet.kill(slot, signal.SIGTERM)
        while worker.is_alive and time.monotonic() < ends:  # noqa: ASYNC110  # a process tells nobody that it ended
            await asyncio.sleep(_POLL_S)
        if worker.is_alive:
            # What it should settle cannot be settled while others are down; a supervisor loses patience too.
            self.fleet.exits[KILLED_AFTER_SIGTERM] += 1
            self.fleet.kill(slot, signal.SIGUSR1)
            await asyncio.sleep(_TOLD_S)
            worker.process.kill()

    async def sigstop(self) -> None:
        """A worker stands still for longer than its session, and wakes up replaced."""
        worker = (await self._victim()).worker
        assert worker is not None
        with _stopped(worker.process.pid):
            await self._last(_LONG_S)

    async def rebalance_storm(self) -> None:
        """Workers that nobody knows join and leave."""
        for _ in range(2):
            self._joined += 1
            self.spare.name = f"spare{self._joined}"
            self.spare.wanted = True
            await self._last(_LONG_S)
            self.spare.wanted = False
            await self.end(self.spare)

    async def clock_jump(self) -> None:
        """A worker's clock is five minutes wrong, in one direction or the other."""
        clock = (await self._victim()).directory / "clock"
        clock.write_text(str(self.chance.choice((-1, 1)) * _SKEW_MS))
        try:
            await self._last(_LONG_S)
        finally:
            clock.unlink()

    # -- Kafka

    def _broker(self) -> KafkaBroker:
        return self.chance.choice(self.ground.kafka.brokers)

    async def broker_kill(self) -> None:
        """A broker crashes and comes back."""
        broker = self._broker()
        await asyncio.to_thread(broker.kill)
        await self._last()
        await asyncio.to_thread(broker.start)
        await self._whole()

    async def broker_stop(self) -> None:
        """A broker stands still until others lead its partitions, and wakes up."""
        with _stopped(self._broker().pid):
            await self._last(_LONG_S)
        await self._whole()

    async def leader_change(self) -> None:
        """A broker is restarted in order, and all partitions go back to the leaders that they should have."""
        broker = self._broker()
        await asyncio.to_thread(broker.stop)
        await asyncio.to_thread(broker.start)
        await self._whole()
        with suppress(KafkaException):
            await asyncio.to_thread(lambda: self._admin().elect_leaders(ElectionType.PREFERRED).result(20))

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.ground.kafka.bootstrap, "log_level": 0})

    async def _whole(self) -> None:
        """Wait until every partition has all its replicas: with a second broker away nothing could be written."""
        ends = time.monotonic() + _WHOLE_S
        while time.monotonic() < ends:
            with suppress(KafkaException):
                known = await asyncio.to_thread(lambda: self._admin().list_topics(timeout=5))
                partitions = [one for topic in known.topics.values() for one in topic.partitions.values()]
                if all(len(one.isrs) == len(one.replicas) for one in partitions):
                    return
            await asyncio.sleep(_POLL_S * 5)

    async def kafka_cut(self) -> None:
        """Connections with brokers break in the middle of what they carry."""
        for _ in range(5):
            self.chance.choice(list(self.ground.brokers.values())).cut_next = True
            await asyncio.sleep(self.chance.uniform(0.2, 1.5))

    async def kafka_blackhole(self) -> None:
        """A broker is behind a network that swallows, and gives everything back later."""
        await self._swallow(self.chance.choice(list(self.ground.brokers.values())), bounds=_LONG_S)

    async def kafka_gone(self) -> None:
        """So are all of them, for longer than a session."""
        await self._swallow(*self.ground.brokers.values(), bounds=_LONG_S)

    async def kafka_slow(self) -> None:
        """Every acknowledgement takes its time, as with slow disks."""
        await self._slow(*self.ground.brokers.values(), delay_s=0.3)

    # -- networks

    async def _swallow(self, *proxies: Proxy, bounds: tuple[float, float] = _SHORT_S) -> None:
        for proxy in proxies:
            proxy.is_blackhole = True
        try:
            await self._last(bounds)
        finally:
            for proxy in proxies:
                proxy.heal()

    async def _slow(self, *proxies: Proxy, delay_s: float) -> None:
        for proxy in proxies:
            proxy.delay_s = delay_s
        try:
            await self._last(_LONG_S)
        finally:
            for proxy in proxies:
                proxy.heal()

    async def _cut(self, proxy: Proxy) -> None:
        for _ in range(5):
            proxy.cut_next = True
            await asyncio.sleep(self.chance.uniform(0.2, 1.0))

    # -- Redis

    def _forgets(self) -> None:
        self.checks.lost_cache_ms = time.time_ns() // 1_000_000

    async def _redis(self, *command: str) -> None:
        def ask() -> None:
            with redis.Redis.from_url(self.ground.redis.url, socket_timeout=10) as client:
                client.execute_command(*command)

        await asyncio.to_thread(ask)

    async def redis_kill(self) -> None:
        """Redis crashes and comes back empty."""
        self.ground.redis.process.kill()
        await self._last()
        await asyncio.to_thread(self.ground.restart_redis)
        self._forgets()

    async def redis_flush(self) -> None:
        """Somebody empties Redis."""
        await self._redis("FLUSHALL")
        self._forgets()

    async def redis_full(self) -> None:
        """Redis has no memory left and refuses what is new."""
        await self._redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await self._redis("CONFIG", "SET", "maxmemory", "1")
        try:
            await self._last()
        finally:
            await self._redis("CONFIG", "SET", "maxmemory", "256mb")
            await self._redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    async def redis_readonly(self) -> None:
        """Redis becomes the replica of a primary that is not there."""
        await self._redis("REPLICAOF", "127.0.0.1", "1")
        try:
            await self._last()
        finally:
            await self._redis("REPLICAOF", "NO", "ONE")

    async def redis_pause(self) -> None:
        """Redis stands still."""
        with _stopped(self.ground.redis.pid):
            await self._last()

    async def redis_cut(self) -> None:
        """Connections with Redis break in mid-frame."""
        await self._cut(self.ground.redis_proxy)

    async def redis_blackhole(self) -> None:
        """The network before Redis swallows."""
        await self._swallow(self.ground.redis_proxy)

    # -- DynamoDB

    async def _weather(self, weather: Weather) -> None:
        self.ground.weather.weather = weather
        try:
            await self._last(_LONG_S)
        finally:
            self.ground.weather.weather = None

    async def dynamodb_throttle(self) -> None:
        """DynamoDB has had enough."""
        await self._weather(throttling)

    async def dynamodb_500(self) -> None:
        """DynamoDB fails, and does some of it all the same."""
        await self._weather(failing)

    async def dynamodb_partial(self) -> None:
        """DynamoDB does a part of each batch."""
        await self._weather(partial)

    async def dynamodb_cut(self) -> None:
        """Connections with DynamoDB break in mid-frame."""
        await self._cut(self.ground.dynamodb_proxy)

    async def dynamodb_blackhole(self) -> None:
        """The network before DynamoDB swallows."""
        await self._swallow(self.ground.dynamodb_proxy, bounds=_LONG_S)

    async def dynamodb_slow(self) -> None:
        """Every answer takes its time."""
        await self._slow(self.ground.dynamodb_proxy, delay_s=0.2)


@contextmanager
def _stopped(pid: int):
    """Let a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        # It may have been killed meanwhile, which works on one that stands still too.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


KINDS: dict[str, Callable[[Faults], Awaitable[None]]] = {
    kind.__name__: kind
    for kind in (
        Faults.sigterm,
        Faults.sigstop,
        Faults.rebalance_storm,
        Faults.clock_jump,
        Faults.broker_kill,
        Faults.broker_stop,
        Faults.leader_change,
        Faults.kafka_cut,
        Faults.kafka_blackhole,
        Faults.kafka_gone,
        Faults.kafka_slow,
        Faults.redis_kill,
        Faults.redis_flush,
        Faults.redis_full,
        Faults.redis_readonly,
        Faults.redis_pause,
        Faults.redis_cut,
        Faults.redis_blackhole,
        Faults.dynamodb_throttle,
        Faults.dynamodb_500,
        Faults.dynamodb_partial,
        Faults.dynamodb_cut,
        Faults.dynamodb_blackhole,
        Faults.dynamodb_slow,
    )
}

"""A Redis Cluster of our own, its nodes child processes on the loopback interface: for tests and for trying.

No tool of Redis is needed: the nodes are told of their slots and of each other by the commands that such a tool sends.
"""

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from core.errors import StoreError
from services.redis_server import RedisProcess, start_redis
from services.server_process import free_ports

READY_DEADLINE_MS = 30_000

_HOST = "127.0.0.1"
_SLOTS = 16_384
_BUS_OFFSET = 10_000
_PORT_TRIES = 200
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class RedisCluster:
    """Running nodes that know each other; node ``i`` of ``n`` serves the ``i``-th part of the slots."""

    nodes: tuple[RedisProcess, ...]

    @property
    def url(self) -> str:
        """Return the URL for clients."""
        return "redis+cluster://" + ",".join(f"{_HOST}:{node.port}" for node in self.nodes)

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.stop()


def start_cluster(directory: Path, *, nodes: int = 3, announced: Sequence[int] = ()) -> RedisCluster:
    """Start nodes, deal out the slots, and wait until every node knows where all of them are.

    Args:
        directory: An existing directory; each node gets one of its own in it.
        nodes: How many, all of them masters.
        announced: Ports that the nodes tell clients instead of their own: those of proxies in front of them.

    Raises:
        StoreError: A node did not start, or they did not find each other within 30 s.
    """
    with ExitStack() as started:
        processes = []
        for number in range(nodes):
            place = directory / f"node-{number}"
            place.mkdir()
            extra = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
            if announced:
                extra["cluster-announce-port"] = str(announced[number])
            process = start_redis(place, port=_free_pair(), extra=extra)
            started.callback(process.stop)
            processes.append(process)
        _join(processes)
        started.pop_all()
    return RedisCluster(tuple(processes))


def _join(processes: list[RedisProcess]) -> None:
    clients = [Redis(host=_HOST, port=process.port) for process in processes]
    try:
        share = -(-_SLOTS // len(clients))
        for number, client in enumerate(clients):
            first = number * share
            # Equal numbers would be settled by a vote, which takes a while.
            _ask(client, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            _ask(client, "CLUSTER ADDSLOTS", *range(first, min(first + share, _SLOTS)))
            _ask(client, "CLUSTER MEET", _HOST, processes[0].port)
        deadline = time.monotonic() + READY_DEADLINE_MS / 1000
        while not all(_knows_all(client, len(clients)) for client in clients):
            if time.monotonic() > deadline:
                raise StoreError(f"{len(clients)} Redis nodes did not become a cluster in {READY_DEADLINE_MS} ms")
            time.sleep(_POLL_SECONDS)
    finally:
        for client in clients:
            client.close()


def _knows_all(client: "Redis", nodes: int) -> bool:
    facts = _ask(client, "CLUSTER INFO")
    return bool(facts["cluster_state"] == "ok" and int(facts["cluster_size"]) == nodes)


def _ask(client: "Redis", *command: Any) -> Any:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def _free_pair() -> int:
    """Return a port that is free and of which the port of the nodes' bus, 10,000 above it, is free too."""
    for _ in range(_PORT_TRIES):
        port = free_ports(1)[0]
        if port + _BUS_OFFSET > 65_535:
            continue
        try:
            with socket.create_server((_HOST, port + _BUS_OFFSET)):
                return port
        except OSError:
            continue
    raise StoreError("no two free ports for a node of a Redis Cluster")

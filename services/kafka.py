"""Apache Kafka as child processes on the loopback interface: one broker, or three that replicate.

Each process is broker and controller (KRaft). Clients find plain text without a password at ``bootstrap``, whatever
else the brokers are told to offer, so that topics and users can be made before anything is locked.
"""

import base64
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from core.errors import BrokerError
from services.java import fetch_jars, java_command
from services.leash import Leash
from services.server_process import HOST, ServerProcess, free_ports, start_on_free_ports

PLAINTEXT = "PLAINTEXT"
START_DEADLINE_MS = 90_000
FORMAT_DEADLINE_MS = 60_000
MEMORY_MB = 512

_POM = Path(__file__).parent / "kafka.pom.xml"
_CONTROLLER = "CONTROLLER"
# Compiling well is for programs that live longer than a second.
_SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


@dataclass(frozen=True, slots=True)
class KafkaBroker:
    """One broker; it can be stopped or killed, and started again with its data.

    Attributes:
        node_id: Its number in the cluster, from 1.
        ports: Where it listens on 127.0.0.1, by security protocol.
        server: Its process.
    """

    node_id: int
    ports: Mapping[str, int]
    server: ServerProcess = field(repr=False)

    @property
    def pid(self) -> int:
        """Return the id of the process of the latest start."""
        return self.server.pid

    @property
    def place(self) -> str:
        """Return ``host:port`` of its listener without encryption and password."""
        return f"{HOST}:{self.ports[PLAINTEXT]}"

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.server.is_alive

    def stop(self) -> None:
        """Let it hand over its partitions and end, at most 10 s until it is killed."""
        self.server.stop()

    def kill(self) -> None:
        """End it as a crash would, by kill -9."""
        self.server.kill()

    def start(self) -> None:
        """Start it again on its old ports and wait until the cluster counts it in.

        Raises:
            BrokerError: It does not; the message holds the end of its log.
        """
        self.server.start()
        _await_members(self, members=1)

    def restart(self) -> None:
        """Stop it, and start it again."""
        self.stop()
        self.start()


@dataclass(frozen=True, slots=True)
class KafkaCluster:
    """A running cluster.

    Attributes:
        brokers: Its brokers, by number.
    """

    brokers: tuple[KafkaBroker, ...]
    own_leash: Leash | None = field(repr=False)

    @property
    def bootstrap(self) -> str:
        """Return ``host:port,...`` of the listeners without encryption and password."""
        return self.bootstrap_for(PLAINTEXT)

    def bootstrap_for(self, protocol: str) -> str:
        """Return ``host:port,...`` of the listeners of one security protocol, among those the cluster started with."""
        return ",".join(f"{HOST}:{broker.ports[protocol]}" for broker in self.brokers)

    def stop(self) -> None:
        """End all brokers at once, as a power cut would; a second call does nothing."""
        # One by one they would wait for each other, and the last for a majority that is gone. Nobody reads on.
        for broker in self.brokers:
            broker.kill()
        if self.own_leash is not None:
            self.own_leash.release()


def start_kafka(
    directory: Path,
    *,
    brokers: int = 1,
    protocols: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    leash: Leash | None = None,
) -> KafkaCluster:
    """Start a cluster on free ports and wait until all brokers have joined it.

    Args:
        directory: An existing directory; each broker has its data, its properties and its log in ``kafka-<number>``.
        brokers: How many. Topics have three replicas on three brokers, and a write needs two of them.
        protocols: Security protocols beside PLAINTEXT that each broker shall listen for, on ports of their own:
            SSL, SASL_PLAINTEXT, SASL_SSL.
        properties: Broker settings that override ours: keystores, SASL mechanisms, limits.
        leash: What it shall not outlive; by default a leash of its own, so it dies with this process.

    Raises:
        ConfigurationError: There is no JVM, or the jars cannot be fetched.
        BrokerError: It did not start within 90 s; the message holds the end of the log.
        AddressTakenError: Other processes took its ports, three times.
    """
    plan = _Plan(
        directory=directory.absolute(),
        jars=fetch_jars(_POM),
        protocols=(PLAINTEXT, *protocols),
        properties=dict(properties or {}),
    )
    return start_on_free_ports(lambda: _start(plan, brokers, leash))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What all brokers of a cluster have in common."""

    directory: Path
    jars: Path
    protocols: Sequence[str]
    properties: Mapping[str, str]
    # A UUID, in base64 without padding; one that started with a dash would look like an option.
    cluster_id: str = field(
        default_factory=lambda: "F" + base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")[1:]
    )


def _start(plan: _Plan, brokers: int, leash: Leash | None) -> KafkaCluster:
    end = leash or Leash()
    cluster = KafkaCluster(_describe(plan, brokers, end), None if leash else end)
    try:
        # Starting a JVM takes longer than what it does here: all at once.
        with ThreadPoolExecutor(max_workers=brokers) as pool:
            list(pool.map(lambda broker: _format(plan, broker, end), cluster.brokers))
        for broker in cluster.brokers:
            broker.server.start()
        for broker in cluster.brokers:
            _await_members(broker, members=brokers)
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _describe(plan: _Plan, brokers: int, leash: Leash) -> tuple[KafkaBroker, ...]:
    names = [*plan.protocols, _CONTROLLER]
    free = iter(free_ports(brokers * len(names)))
    ports = {node: {name: next(free) for name in names} for node in range(1, brokers + 1)}
    voters = ",".join(f"{node}@{HOST}:{of[_CONTROLLER]}" for node, of in ports.items())
    described = []
    for node, of in ports.items():
        home = plan.directory / f"kafka-{node}"
        # What an attempt on other ports left behind names those ports.
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        settings = {**_settings(node, of, voters, replicas=min(3, brokers), home=home), **plan.properties}
        _properties_file(home).write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        command = [
            *java_command(plan.jars, directory=home, memory_mb=MEMORY_MB, options=("-Dlog4j2.level=WARN",)),
            "kafka.Kafka",
            str(_properties_file(home)),
        ]
        server = ServerProcess(f"Kafka broker {node}", command, directory=home, log=home / "broker.log", leash=leash)
        described.append(KafkaBroker(node, of, server))
    return tuple(described)


def _settings(node: int, ports: Mapping[str, int], voters: str, *, replicas: int, home: Path) -> dict[str, str]:
    listeners = ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "controller.listener.names": _CONTROLLER,
        "listeners": listeners,
        "advertised.listeners": ",".join(one for one in listeners.split(",") if not one.startswith(_CONTROLLER)),
        "listener.security.protocol.map": ",".join(
            f"{name}:{PLAINTEXT if name == _CONTROLLER else name}" for name in ports
        ),
        "inter.broker.listener.name": PLAINTEXT,
        "log.dirs": str(home / "data"),
        "default.replication.factor": str(replicas),
        "offsets.topic.replication.factor": str(replicas),
        "transaction.state.log.replication.factor": str(replicas),
        # What acks=all waits for: of three, one may be away.
        "min.insync.replicas": str(max(1, replicas - 1)),
        "transaction.state.log.min.isr": str(max(1, replicas - 1)),
        # 50 of them would be 50 open files and a slow first group, for load that one machine never sees.
        "offsets.topic.num.partitions": "5",
        # A group's first member is not made to wait for others: tests and demos start with one.
        "group.initial.rebalance.delay.ms": "0",
        # Topics are made with the settings that they need, or not at all.
        "auto.create.topics.enable": "false",
    }


def _properties_file(home: Path) -> Path:
    return home / "server.properties"


def _format(plan: _Plan, broker: KafkaBroker, leash: Leash) -> None:
    """Give a broker's data directory the cluster's name, without which it does not start."""
    home = plan.directory / f"kafka-{broker.node_id}"
    command = [
        *java_command(plan.jars, directory=home, memory_mb=256, options=_SHORT_LIVED),
        *("kafka.tools.StorageTool", "format", "-t", plan.cluster_id, "-c", str(_properties_file(home))),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - Kafka's own tool, our own arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=home,
            process_group=leash.group,
            timeout=FORMAT_DEADLINE_MS / 1000,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BrokerError(f"Kafka's data in {home} was not prepared within {FORMAT_DEADLINE_MS} ms") from error
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()[-2_000:]
        raise BrokerError(f"Kafka's data in {home} cannot be prepared:\n{said}")


def _await_members(broker: KafkaBroker, *, members: int) -> None:
    """Wait until a broker knows of so many brokers, itself among them."""
    client = AdminClient(
        {
            "bootstrap.servers": broker.place,
            "reconnect.backoff.max.ms": 200,
            # It would write of every connection that is refused until the broker listens.
            "log_level": 0,
        }
    )

    def counts() -> bool:
        try:
            known = client.list_topics(timeout=1).brokers
        except KafkaException:
            return False
        return broker.node_id in known and len(known) >= members

    broker.server.await_answer(counts, deadline_ms=START_DEADLINE_MS, error=BrokerError)

"""Kafka as tests of Freshet want it: its topics made anew, commands run on it, and one that asks for passwords."""

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from typer.testing import CliRunner

from app.cli import cli
from app.kafka.access import KafkaAccess, kafka_access
from app.kafka.admin import KafkaAdmin
from app.kafka.groups import group_of
from app.kafka.topics import plan_topics
from app.settings import Role, load_settings
from app.worker_process import WorkerProcess, start_worker
from features import REGISTRY
from services.kafka import KafkaCluster, start_kafka
from tests.acceptance.conftest import free_port, until

BUSY_S = 120.0
SOURCE_PARTITIONS = 4
USER, PASSWORD = "freshet", "open-sesame"  # of a broker that lives for a test
_JAAS = "org.apache.kafka.common.security.{} required {};"


@dataclass(frozen=True)
class SecuredKafka:
    """A broker with listeners for plain text, TLS with client certificates, and passwords over TLS."""

    cluster: KafkaCluster
    directory: Path

    @property
    def plain(self) -> dict[str, str]:
        """Settings without encryption and password."""
        return {"FRESHET_BROKER": self.cluster.bootstrap}

    @property
    def certificates(self) -> dict[str, str]:
        """Settings with a certificate of our own."""
        return {
            "FRESHET_BROKER": self.cluster.bootstrap_for("SSL"),
            "FRESHET_BROKER_TLS": "true",
            "FRESHET_BROKER_CA": str(self.directory / "ca.pem"),
            "FRESHET_BROKER_CERTIFICATE": str(self.directory / "client.crt"),
            "FRESHET_BROKER_KEY": str(self.directory / "client.key"),
        }

    def passwords(self, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """Settings with user and password over TLS."""
        return {
            "FRESHET_BROKER": self.cluster.bootstrap_for("SASL_SSL"),
            "FRESHET_BROKER_TLS": "true",
            "FRESHET_BROKER_CA": str(self.directory / "ca.pem"),
            "FRESHET_BROKER_SASL": mechanism,
            "FRESHET_BROKER_USER": USER,
            "FRESHET_BROKER_PASSWORD": PASSWORD,
        }


def start_secured_kafka(directory: Path) -> SecuredKafka:
    """Start one broker with Freshet's topics; stop its ``cluster`` at the end."""
    _make_certificates(directory)
    mechanisms = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    modules = {
        "PLAIN": _JAAS.format("plain.PlainLoginModule", f'user_{USER}="{PASSWORD}"'),
        "SCRAM-SHA-256": _JAAS.format("scram.ScramLoginModule", ""),
        "SCRAM-SHA-512": _JAAS.format("scram.ScramLoginModule", ""),
    }
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(directory / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(directory / "ca.pem"),
        "listener.name.ssl.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": ",".join(mechanisms),
    } | {f"listener.name.sasl_ssl.{name.lower()}.sasl.jaas.config": module for name, module in modules.items()}
    cluster = start_kafka(directory, protocols=["SSL", "SASL_SSL"], properties=properties)
    client = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        info = ScramCredentialInfo(mechanism, 4096)
        for told in client.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(USER, info, PASSWORD.encode())]
        ).values():
            told.result(30)
    make_topics(cluster.bootstrap)
    return SecuredKafka(cluster, directory)


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
    # Static members that were stopped stay until their session is over.
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


def _make_certificates(directory: Path) -> None:
    """Make an authority and, signed by it, certificates for 127.0.0.1; no other name is in them."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)  # noqa: S607  # from PATH

    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    new_key = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new_key, "-x509", "-days", "3", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        openssl(*new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "3", "-extfile", "names", "-out", f"{name}.crt"),
        )
    pair = [(directory / f"server.{part}").read_text() for part in ("key", "crt")]
    (directory / "server.pem").write_text("".join(pair))

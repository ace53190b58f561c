"""A Kafka that asks for certificates and passwords, beside a listener that asks for nothing."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from services.kafka import KafkaCluster, start_kafka

USER, PASSWORD = "freshet", "open-sesame"  # of a broker that lives for a test run
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
    """Start one broker; stop its ``cluster`` at the end."""
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
    return SecuredKafka(cluster, directory)


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

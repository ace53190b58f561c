"""Kafka access: where the brokers are and how to be let in, one value for every client of the project.

Three libraries talk to Kafka: Faust (consumer and producer of the agents), aiokafka on its own (changelogs, pushed
events) and librdkafka (administration, ``freshet send``, dead letters). Each has other names for the same settings, and
they stand here only, so that no client is forgotten when a cluster asks for a certificate or a password.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
from faust.types.auth import CredentialsT
from pydantic import SecretStr

from app.settings import Settings
from core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Tls:
    """How a broker proves that it is one, and we that we are us.

    Attributes:
        ca: PEM file with the authorities that brokers' certificates are trusted by, or None for the system's.
        certificate: PEM file with our own certificate, or None where brokers ask for none.
        key: PEM file with its key.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: SecretStr | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for Python's own TLS; the broker's host name is verified.

        Raises:
            ConfigurationError: A file is missing or is not what it should be.
        """
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"FRESHET_BROKER_CA={self.ca} cannot be read: {_reason(error)}") from error
        if self.certificate is not None:
            # Without a callback Python would ask at the terminal for the password of an encrypted key.
            password = "" if self.key_password is None else self.key_password.get_secret_value()
            try:
                context.load_cert_chain(self.certificate, self.key, password=lambda: password)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(
                    f"FRESHET_BROKER_CERTIFICATE={self.certificate} and FRESHET_BROKER_KEY={self.key} cannot be used "
                    f"together: {_reason(error)}; they must be PEM, the key's password is FRESHET_BROKER_KEY_PASSWORD"
                ) from error
        return context


@dataclass(frozen=True, slots=True)
class Sasl:
    """A user and a password.

    Attributes:
        mechanism: ``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``.
    """

    mechanism: str
    user: str
    password: SecretStr


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """Brokers, and how to be let in.

    Attributes:
        bootstrap: ``host:port`` of brokers to ask first.
        tls: None for connections that are not encrypted.
        sasl: None where there are no passwords.
    """

    bootstrap: tuple[str, ...]
    tls: Tls | None = None
    sasl: Sasl | None = None

    def __str__(self) -> str:
        return ",".join(self.bootstrap)

    @property
    def protocol(self) -> str:
        """The security protocol, as all Kafka clients call it."""
        return f"{'SASL_' if self.sasl else ''}{'SSL' if self.tls else 'PLAINTEXT'}"

    def for_aiokafka(self) -> dict[str, Any]:
        """Return keyword arguments for aiokafka's clients.

        Raises:
            ConfigurationError: A file of TLS cannot be used.
        """
        found: dict[str, Any] = {"bootstrap_servers": list(self.bootstrap), "security_protocol": self.protocol}
        if self.tls is not None:
            found["ssl_context"] = self.tls.context()
        if self.sasl is not None:
            found["sasl_mechanism"] = self.sasl.mechanism
            found["sasl_plain_username"] = self.sasl.user
            found["sasl_plain_password"] = self.sasl.password.get_secret_value()
        return found

    def for_faust(self) -> CredentialsT | None:
        """Return Faust's credentials, for its consumer and its producer; None where none are needed.

        Raises:
            ConfigurationError: A file of TLS cannot be used.
        """
        context = None if self.tls is None else self.tls.context()
        if self.sasl is not None:
            return faust.SASLCredentials(
                username=self.sasl.user,
                password=self.sasl.password.get_secret_value(),
                mechanism=self.sasl.mechanism,
                ssl_context=context,
            )
        return None if context is None else faust.SSLCredentials(context=context)

    def for_librdkafka(self) -> dict[str, Any]:
        """Return settings for confluent_kafka's clients; librdkafka verifies host names by itself."""
        found: dict[str, Any] = {"bootstrap.servers": str(self), "security.protocol": self.protocol}
        if self.tls is not None:
            files: Mapping[str, Path | None] = {
                "ssl.ca.location": self.tls.ca,
                "ssl.certificate.location": self.tls.certificate,
                "ssl.key.location": self.tls.key,
            }
            found |= {name: str(path) for name, path in files.items() if path is not None}
            if self.tls.key_password is not None:
                found["ssl.key.password"] = self.tls.key_password.get_secret_value()
        if self.sasl is not None:
            found["sasl.mechanism"] = self.sasl.mechanism
            found["sasl.username"] = self.sasl.user
            found["sasl.password"] = self.sasl.password.get_secret_value()
        return found


def kafka_access(settings: Settings, *bootstrap: str) -> KafkaAccess:
    """Return the access that settings describe.

    Args:
        settings: Of the worker or command.
        bootstrap: ``host:port`` of brokers, if they are other than the settings name: the embedded one's.

    Raises:
        ConfigurationError: Settings that do not fit together; all problems are told.
    """
    if settings.is_embedded:
        return KafkaAccess(bootstrap)
    problems = _problems(settings)
    if problems:
        raise ConfigurationError("; ".join(problems))
    tls = (
        Tls(settings.broker_ca, settings.broker_certificate, settings.broker_key, settings.broker_key_password)
        if settings.broker_tls
        else None
    )
    sasl = (
        Sasl(settings.broker_sasl, settings.broker_user, settings.broker_password)
        if settings.broker_sasl != "none" and settings.broker_password is not None
        else None
    )
    return KafkaAccess(bootstrap or tuple(settings.bootstrap), tls, sasl)


def _problems(settings: Settings) -> list[str]:
    """Return what does not fit together, without any value of it."""
    found = []
    named = (settings.broker_ca, settings.broker_certificate, settings.broker_key, settings.broker_key_password)
    if not settings.broker_tls and any(one is not None for one in named):
        found.append("FRESHET_BROKER_CA, _CERTIFICATE and _KEY are for TLS: set FRESHET_BROKER_TLS=true")
    if (settings.broker_certificate is None) != (settings.broker_key is None):
        found.append("FRESHET_BROKER_CERTIFICATE and FRESHET_BROKER_KEY belong together: set both or none")
    if settings.broker_sasl == "none":
        if settings.broker_user or settings.broker_password is not None:
            found.append("FRESHET_BROKER_USER and _PASSWORD are for SASL: set FRESHET_BROKER_SASL, as SCRAM-SHA-512")
    elif not settings.broker_user or settings.broker_password is None:
        found.append(f"FRESHET_BROKER_SASL={settings.broker_sasl} needs FRESHET_BROKER_USER and _PASSWORD")
    if settings.broker_sasl == "PLAIN" and not settings.broker_tls:
        found.append("FRESHET_BROKER_SASL=PLAIN sends the password as it is: set FRESHET_BROKER_TLS=true, or use SCRAM")
    return found


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__

"""The first contact with Kafka: why there is none, in one sentence, before anything else is tried.

Clients try for ever and tell of each attempt. A start that cannot work should end with the reason, so each step is
taken by itself: is there a name, does something listen, is its certificate that host's, does the password fit.
"""

import socket
import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from app.kafka.access import KafkaAccess, Tls
from core.errors import ConfigurationError

_CONNECT_S = 3.0
_ATTEMPT_S = 1.0
_ANSWER_S = 15.0
# A broker that has just been started refuses connections for a moment.
_LISTEN_S = 6.0
_PAUSE_S = 0.2


def require_kafka(access: KafkaAccess, *, listen_s: float = _LISTEN_S) -> None:
    """Return once a broker has let us in; blocks for at most 25 s.

    Args:
        access: Brokers, and how to be let in.
        listen_s: How long to wait for one that takes connections.

    Raises:
        ConfigurationError: None does; the message says which broker, why, and what to do.
    """
    _require_listener(access, listen_s)
    told: list[KafkaError] = []
    settings: dict[str, Any] = {**access.for_librdkafka(), "log_level": 0, "error_cb": told.append}
    client = AdminClient(settings)
    deadline = time.monotonic() + _ANSWER_S
    while True:
        try:
            client.list_topics(timeout=_ATTEMPT_S)
        except KafkaException as error:
            client.poll(0)
            reason = explain(access, told)
            if reason:
                raise ConfigurationError(reason) from error
            if time.monotonic() > deadline:
                last = next((one.str() for one in reversed(told) if one.code() != KafkaError._ALL_BROKERS_DOWN), "")  # noqa: SLF001  # its name
                raise ConfigurationError(_silent(access, last)) from error
        else:
            return


def explain(access: KafkaAccess, told: list[KafkaError]) -> str:
    """Return why librdkafka is not let in, or nothing if it may be let in a moment later."""
    for error in told:
        if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001  # its public name
            user = access.sasl.user if access.sasl else ""
            return (
                f"Kafka at {access} does not let in the user {user!r} ({_detail(error)}): check FRESHET_BROKER_USER, "
                f"_PASSWORD and _SASL, and that the port is the one for passwords"
            )
        if "alert" in error.str() and access.tls is not None:
            own = "refuses our certificate" if access.tls.certificate else "asks for a certificate of ours"
            return (
                f"Kafka at {access} {own} ({_detail(error)}): set FRESHET_BROKER_CERTIFICATE and FRESHET_BROKER_KEY to "
                f"files that an authority trusted by the brokers has signed"
            )
    return ""


def _require_listener(access: KafkaAccess, listen_s: float) -> None:
    """Connect to any of the first brokers, with TLS if that is spoken."""
    deadline = time.monotonic() + listen_s
    while True:
        reasons = [_connect(place, access.tls) for place in access.bootstrap]
        reason = next((reason for reason in reasons if reason), "")
        if "" in reasons:
            return
        if time.monotonic() > deadline or "certificate" in reason:
            raise ConfigurationError(reason)
        time.sleep(_PAUSE_S)


def _connect(place: str, tls: Tls | None) -> str:
    """Return why there is no connection, or nothing if there is."""
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        return f"FRESHET_BROKER: {place!r} is no host:port"
    context = None if tls is None else tls.context()
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S) as connection:
            if context is not None:
                context.wrap_socket(connection, server_hostname=host.strip("[]")).close()
    except OSError as error:
        return _refused(place, host, error)
    return ""


def _refused(place: str, host: str, error: OSError) -> str:
    # Only a failed verification has it, and only it says what is wrong with the certificate.
    verification = getattr(error, "verify_message", "")
    if "mismatch" in verification:
        return (
            f"Kafka at {place} shows the certificate of another host: {verification.rstrip('.')}; name the broker in "
            f"FRESHET_BROKER as its certificate does, or have a certificate made for {host!r}"
        )
    if verification:
        return (
            f"Kafka at {place} shows a certificate that is not trusted ({verification}): set FRESHET_BROKER_CA to the "
            f"authority that signed it"
        )
    if isinstance(error, socket.gaierror):
        return f"Kafka at {place}: there is no host {host!r} ({error.strerror}); check FRESHET_BROKER"
    said = error.strerror or type(error).__name__
    return (
        f"Kafka at {place} does not answer ({said}): check FRESHET_BROKER, that the broker runs and can be reached, "
        f"and whether its port speaks TLS (FRESHET_BROKER_TLS)"
    )


def _silent(access: KafkaAccess, last: str) -> str:
    spoken = "TLS" if access.tls else "plain Kafka"
    return (
        f"Kafka at {access} takes connections and does not answer ({last or 'no reason is given'}): "
        f"its port may not speak {spoken} (FRESHET_BROKER_TLS), or the addresses that it advertises cannot be reached"
    )


def _detail(error: KafkaError) -> str:
    """Return the end of what librdkafka says: it begins with the place, which we tell ourselves."""
    text: str = error.str()
    return text.partition("/bootstrap: ")[2].partition(" (after")[0] or text

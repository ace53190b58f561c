"""Two ways of events to a source's topic: to Kafka itself, or over HTTP through a worker."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException, Producer
from typing_extensions import override

from client.producer import SendError, Transport

_ACK_DEADLINE_S = 30.0
_HTTP_DEADLINE_S = 20.0
_TRIES = 4
_PAUSE_S = 0.5


class KafkaTransport(Transport):
    """Sends to Kafka, idempotent and acknowledged by all replicas."""

    def __init__(self, broker: str, settings: Mapping[str, Any] | None = None) -> None:
        """Connect.

        Args:
            broker: ``host:port[,host:port]``.
            settings: Further settings of librdkafka: TLS, SASL.
        """
        self._broker = broker
        own = {"bootstrap.servers": broker, "enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random"}
        self._producer = Producer({**(settings or {}), **own})

    @override
    def send(self, topic: str, events: Sequence[Mapping[str, Any]]) -> None:
        failures: list[str] = []
        try:
            for event in events:
                self._producer.produce(
                    topic,
                    value=json.dumps(event, allow_nan=False).encode(),
                    on_delivery=lambda error, _: failures.append(error.str()) if error is not None else None,
                )
            left = self._producer.flush(_ACK_DEADLINE_S)
        except (KafkaException, BufferError) as error:
            raise SendError(f"{self._broker}: {error}") from error
        if left or failures:
            raise SendError(f"{self._broker}: {left + len(failures)} of {len(events)} events: {failures[:1]}")

    @override
    def close(self) -> None:
        self._producer.flush(_ACK_DEADLINE_S)


class HttpTransport(Transport):
    """Sends to a worker's ``POST /push``; what was not acknowledged is sent again, up to four times in all."""

    def __init__(self, url: str, *, key: str | None = None, pause_s: float = _PAUSE_S) -> None:
        """Remember where to send.

        Args:
            url: Of a serving worker, ``http://host:port``.
            key: API key of scope ``push``, if the worker has keys.
            pause_s: Before the second try; doubled before each further one.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError("the URL of a worker begins with http:// or https://")
        self._url = f"{url.rstrip('/')}/push"
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._pause_s = pause_s

    @override
    def send(self, topic: str, events: Sequence[Mapping[str, Any]]) -> None:
        for columns in _columns(events):
            body = json.dumps({"push_source_name": topic, "df": columns}, allow_nan=False).encode()
            self._post(urllib.request.Request(self._url, data=body, headers=self._headers))  # noqa: S310  # checked

    @override
    def close(self) -> None:
        """Do nothing: every request has a connection of its own."""

    def _post(self, request: urllib.request.Request) -> None:
        for number in range(_TRIES):
            if number:
                time.sleep(self._pause_s * 2 ** (number - 1))
            try:
                with urllib.request.urlopen(request, timeout=_HTTP_DEADLINE_S):  # noqa: S310  # checked above
                    return
            except urllib.error.HTTPError as error:
                with error:
                    told = f"{error.code}: {error.read().decode(errors='replace')[:2_000]}"
                if error.code < 500:
                    raise SendError(f"{self._url}: {told}") from error
            except OSError as error:
                told = str(error)
        raise SendError(f"{self._url}: {_TRIES} tries, the last: {told}")


def _columns(events: Sequence[Mapping[str, Any]]) -> list[dict[str, list[Any]]]:
    """Return columns, one set per set of fields: a field that an event lacks is not null."""
    sets: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for event in events:
        sets.setdefault(tuple(sorted(event)), []).append(event)
    return [{name: [event[name] for event in own] for name in names} for names, own in sets.items()]

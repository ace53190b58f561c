"""Intake: events that came over HTTP go to their source's topic, with a producer of its own.

It is opened by the first push, so a serving worker without pushes never connects to the broker. Idempotent with
``acks=all``; a key's partition is the one that Kafka's default partitioner chooses. After an error the producer is
closed and the next push opens another: an idempotent producer that lost a batch may refuse everything after it.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from core.errors import BrokerError, EventError

log = logging.getLogger(__name__)

OUTSTANDING_BYTES_MAX = 32 << 20
ACK_DEADLINE_MS = 10_000
_REQUEST_TIMEOUT_MS = 5_000
_CLOSE_DEADLINE_S = 5.0
_RECORD_BYTES_MAX = 1 << 20
_BATCH_BYTES_MAX = 256 << 10


class Intake:
    """Sends events to sources and awaits the broker's acknowledgement."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        outstanding_bytes_max: int = OUTSTANDING_BYTES_MAX,
        ack_deadline_ms: int = ACK_DEADLINE_MS,
    ) -> None:
        """Connect to nothing yet.

        Args:
            settings: How the broker is reached, as aiokafka names it.
            outstanding_bytes_max: Bytes that may wait for acknowledgements; beyond them a push is refused at once.
            ack_deadline_ms: How long a push waits for its acknowledgements.
        """
        self._settings = settings
        self._outstanding_bytes_max = outstanding_bytes_max
        self._ack_deadline_ms = ack_deadline_ms
        self._outstanding_bytes = 0
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()

    async def send(self, topic: str, events: Sequence[tuple[bytes | None, bytes]]) -> None:
        """Send keys and values, and await their acknowledgement.

        Raises:
            BrokerError: Not all were acknowledged in time, or too many bytes wait already. Whether events were stored
                is unknown; sent again with the same ids they count once.
            EventError: The topic takes no record as large as one of these.
        """
        size = sum(len(key or b"") + len(value) for key, value in events)
        # One push may be larger than the limit, but not beside another.
        if self._outstanding_bytes and self._outstanding_bytes + size > self._outstanding_bytes_max:
            raise BrokerError(
                f"{self._outstanding_bytes} pushed bytes wait, the limit is {self._outstanding_bytes_max}"
            )
        self._outstanding_bytes += size
        producer: AIOKafkaProducer | None = None
        try:
            async with asyncio.timeout(self._ack_deadline_ms / 1000):
                producer = await self._open()
                await _send(producer, topic, events)
        except MessageSizeTooLargeError as error:
            raise EventError("too_large", f"{topic} takes no record as large as one of these: {error}") from error
        except TimeoutError as error:
            await self._drop(producer)
            raise BrokerError(f"{topic}: not all acknowledged within {self._ack_deadline_ms} ms") from error
        except (KafkaError, OSError) as error:
            await self._drop(producer)
            raise BrokerError(f"{topic}: {type(error).__name__}: {error}") from error
        finally:
            self._outstanding_bytes -= size

    async def close(self) -> None:
        """Close the producer, if there is one."""
        await self._drop(self._producer)

    async def _open(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._settings,
                    acks="all",
                    enable_idempotence=True,
                    max_request_size=_RECORD_BYTES_MAX,
                    max_batch_size=_BATCH_BYTES_MAX,
                    request_timeout_ms=_REQUEST_TIMEOUT_MS,
                )
                try:
                    await producer.start()
                except BaseException:
                    # Also at the deadline: half an open producer keeps its connections and tasks.
                    await _stop(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _drop(self, producer: AIOKafkaProducer | None) -> None:
        """Close a producer; another push may have opened the next one already, which stays."""
        if producer is not None and self._producer is producer:
            self._producer = None
            await _stop(producer)


async def _send(producer: AIOKafkaProducer, topic: str, events: Sequence[tuple[bytes | None, bytes]]) -> None:
    acknowledgements: list[asyncio.Future[Any]] = []
    try:
        for key, value in events:
            acknowledgements.append(await producer.send(topic, key=key, value=value))  # kept if one fails
        await asyncio.gather(*acknowledgements)
    finally:
        for acknowledgement in acknowledgements:
            # Nobody waits for the rest of a push that failed; asyncio would complain of errors that nobody took.
            if not acknowledgement.cancel() and not acknowledgement.cancelled():
                acknowledgement.exception()


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(_CLOSE_DEADLINE_S):
            await producer.stop()
    except (KafkaError, TimeoutError) as error:
        log.warning("producer of pushes not closed in order: %s", error)

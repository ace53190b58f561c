"""HTTP routes of events that come without Kafka: they go to the source's topic, and the answer waits for its acks.

No route writes a store (PROTOCOL, P10): what is answered with 200 is in the topic, and counts a moment later like any
other event. 503 says that this is not known; the same request may be sent again, its events keep their identities.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aiohttp import web

from core.definitions import Registry
from core.errors import BrokerError, EventError, RequestError
from core.metrics import Metrics
from core.ports import Clock
from serving.models import FeastMistake, Mistake, PushRequest, RowMistake, WriteRequest
from serving.push.events import EventMaker, EventReader, Outgoing
from serving.push.requests import Mistake as FoundMistake
from serving.push.requests import Push, RefusedRowsError, parse_push, parse_write
from serving.web.answer import RETRY_AFTER_S, json_response, read_body, response
from serving.web.mistakes import failure, told
from serving.web.routes import JSON, Route, mistakes

log = logging.getLogger(__name__)

_BODY_DEADLINE_MS = 10_000
_YIELD_EVERY = 50
_MISTAKES_MAX = 100


class Intake(Protocol):
    """Where events go."""

    async def send(self, topic: str, events: Sequence[Outgoing]) -> None:
        """Send events and await their acknowledgement.

        Raises:
            BrokerError: Not all were acknowledged, or there is no room for more at the moment.
            EventError: The broker takes no event as large as one of these.
        """
        ...


class PushRoutes:
    """The handlers of one worker."""

    def __init__(
        self,
        *,
        registry: Registry,
        readers: Callable[[], Mapping[str, EventReader]],
        intake: Callable[[], Intake],
        clock: Clock,
        metrics: Metrics,
        body_deadline_ms: int = _BODY_DEADLINE_MS,
    ) -> None:
        self._registry = registry
        self._readers = readers
        self._intake = intake
        self._clock = clock
        self._metrics = metrics
        self._body_deadline_ms = body_deadline_ms

    def table(self) -> list[Route]:
        """Return the routes."""
        either = (Mistake, FeastMistake)
        failures = mistakes(400, 408, 413, 503) | {404: either, 422: either}
        return [
            Route(
                "POST", "/push", self.push, "Send events to a source; answered after the broker's acknowledgement",
                takes=PushRequest, failures=failures,
            ),
            Route(
                "POST", "/write-to-online-store", self.write_to_online_store, "The same, as Feast's SDK writes",
                takes=WriteRequest, media=JSON, failures=failures,
            ),
        ]  # fmt: skip

    async def push(self, request: web.Request) -> web.Response:
        """Answer ``POST /push``: 200 without a body, as Feast's server does."""
        return await self._answer(request, parse_push) or web.Response()

    async def write_to_online_store(self, request: web.Request) -> web.Response:
        """Answer ``POST /write-to-online-store``: 200 and ``null``, as Feast's server does."""
        return await self._answer(request, parse_write) or json_response(None)

    async def _answer(self, request: web.Request, parse: Callable[[bytes, Registry], Push]) -> web.Response | None:
        """Take a push; return None if all of it is in its topic."""
        try:
            push = parse(await read_body(request, deadline_ms=self._body_deadline_ms), self._registry)
            await self._take(push, request.headers.get("Idempotency-Key", ""))
        except RefusedRowsError as error:
            rows = [RowMistake(row=row, detail=what) for row, what in error.mistakes[:_MISTAKES_MAX]]
            return response(told(error.status, error.detail, rows=rows))
        except RequestError as error:
            return response(failure(error, path=request.path))
        except BrokerError as error:
            log.warning("push not acknowledged: %s", error)
            detail = "the broker has not acknowledged all events; send the same request again"
            return response(told(503, detail, retry_after=RETRY_AFTER_S))
        return None

    async def _take(self, push: Push, idempotency_key: str) -> None:
        maker = EventMaker(self._readers()[push.topic], idempotency_key=idempotency_key, now_ms=self._clock.now_ms())
        try:
            events = await _make_all(maker, push)
            await self._intake().send(push.topic, events)
        except RefusedRowsError:
            self._metrics.pushed(push.topic, "refused", push.rows)
            raise
        except EventError as error:
            self._metrics.pushed(push.topic, "refused", push.rows)
            raise RequestError(413, error.detail) from error
        except BrokerError:
            self._metrics.pushed(push.topic, "unacknowledged", push.rows)
            raise
        self._metrics.pushed(push.topic, "accepted", push.rows)


async def _make_all(maker: EventMaker, push: Push) -> list[Outgoing]:
    """Return the events of all rows.

    Raises:
        RefusedRowsError: Some are none; every mistake of every row is told.
    """
    events, found = [], []
    names = list(push.columns)
    for number, values in enumerate(zip(*push.columns.values(), strict=True)):
        try:
            events.append(maker.make(dict(zip(names, values, strict=True))))
        except EventError as error:
            found += [FoundMistake(number, what) for what in error.mistakes]
        if number % _YIELD_EVERY == _YIELD_EVERY - 1:
            # Ten thousand rows must not hold up everybody who reads.
            await asyncio.sleep(0)
    if found:
        raise RefusedRowsError(found)
    return events

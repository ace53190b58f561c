"""HTTP routes of the read path, in the worker's own web server; Feast's wire contract with truthful statuses."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from core.errors import FormatError, RequestError, StoreError
from core.metrics import Metrics
from serving.access import may_see_figures
from serving.answers import RETRY_AFTER_S, error_response, json_response, read_body
from serving.requests import parse_request
from serving.server import FeatureServer

log = logging.getLogger(__name__)

_BODY_DEADLINE_MS = 10_000


class Health(Protocol):
    """What a worker knows about itself."""

    async def can_read(self) -> bool:
        """Whether the stores answer."""
        ...

    def ingest(self) -> dict[str, Any]:
        """Return ``ready`` and the figures of ingestion: partitions, lag, age of the last commit."""
        ...


class Routes:
    """The handlers of one worker."""

    def __init__(
        self,
        *,
        server: Callable[[], FeatureServer],
        health: Health,
        metrics: Metrics,
        body_deadline_ms: int = _BODY_DEADLINE_MS,
    ) -> None:
        self._server = server
        self._health = health
        self._metrics = metrics
        self._body_deadline_ms = body_deadline_ms

    def attach(self, app: web.Application, *, features: bool) -> None:
        """Add the routes to a web application.

        Args:
            app: The worker's.
            features: Whether this worker answers reads of features, or tells of its health alone.
        """
        if features:
            app.router.add_post("/get-online-features", self.get_online_features)
        app.router.add_get("/health", self.alive)
        app.router.add_get("/ready", self.ready)
        app.router.add_get("/ready/ingest", self.ready_ingest)
        app.router.add_get("/metrics", self.metrics)

    async def get_online_features(self, request: web.Request) -> web.Response:
        """Answer ``POST /get-online-features``."""
        started = time.perf_counter()
        response = await _answered(self._features(request))
        self._metrics.request(response.status, time.perf_counter() - started)
        return response

    async def alive(self, _request: web.Request) -> web.Response:
        """Answer ``GET /health``: the process runs its loop."""
        return web.Response()

    async def ready(self, _request: web.Request) -> web.Response:
        """Answer ``GET /ready``: reads work."""
        works = await self._health.can_read()
        return json_response({"ready": works}, status=200 if works else 503)

    async def ready_ingest(self, request: web.Request) -> web.Response:
        """Answer ``GET /ready/ingest``: partitions are owned, restored and read."""
        facts = self._health.ingest()
        shown = facts if may_see_figures(request) else {"ready": facts["ready"]}
        return json_response(shown, status=200 if facts["ready"] else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Answer ``GET /metrics`` for Prometheus."""
        self._health.ingest()
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _features(self, request: web.Request) -> web.Response:
        body = await read_body(request, deadline_ms=self._body_deadline_ms)
        answer = await self._server().answer(parse_request(body))
        return json_response(answer)


async def _answered(work: Awaitable[web.Response]) -> web.Response:
    try:
        return await work
    except RequestError as error:
        return error_response(error)
    except StoreError as error:
        log.warning("read failed: %s", error)
        return json_response(
            {"detail": "the record store gives no answer; try again"}, status=503, retry_after=RETRY_AFTER_S
        )
    except FormatError as error:
        log.error("stored row unreadable: %s", error)  # noqa: TRY400  # the message says all, the trace nothing more
        return json_response({"detail": "a stored row cannot be read; the server's log says which"}, status=500)

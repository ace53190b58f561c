"""HTTP routes of the read path, in the worker's own web server; Feast's wire contract with truthful statuses."""

from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from core.errors import RequestError
from core.metrics import Metrics
from serving.answers.requests import deadline_of
from serving.explain.explainer import Explainer, parse_explain
from serving.models import (
    AnyExplanation,
    FeastMistake,
    IngestReadiness,
    Mistake,
    OnlineFeaturesAnswer,
    OnlineFeaturesRequest,
    Readiness,
)
from serving.web.access import may_see_figures
from serving.web.answer import Answer, json_response, read_body, response
from serving.web.health import Health
from serving.web.mistakes import ANSWERED, failure, tell_mistakes
from serving.web.openapi import describe
from serving.web.reads import DEADLINE_HEADER, DEADLINE_MS, Reads
from serving.web.routes import JSON, Parameter, Route, mistakes

_BODY_DEADLINE_MS = 8_000


class Routes:
    """The handlers of one worker."""

    def __init__(
        self,
        *,
        reads: Reads,
        explainer: Callable[[], Explainer],
        health: Health,
        metrics: Metrics,
        body_deadline_ms: int = _BODY_DEADLINE_MS,
    ) -> None:
        """Answer for one worker.

        Args:
            reads: Answers reads.
            explainer: Answers explanations; asked for at each, because the routes are there before it.
            health: What the worker knows about itself.
            metrics: Of the worker.
            body_deadline_ms: How long a body may take.
        """
        self._reads = reads
        self._explainer = explainer
        self._health = health
        self._metrics = metrics
        self._body_deadline_ms = body_deadline_ms

    def attach(self, app: web.Application, *, features: bool, more: Sequence[Route] = ()) -> None:
        """Add the routes to a web application, and the description of all of them.

        Args:
            app: The worker's.
            features: Whether this worker answers reads of features, or tells of its health alone.
            more: Routes of others.
        """
        routes = [*(self._reading() if features else ()), *self._telling(), *more]
        described: dict[str, Any] = {}

        async def openapi(_request: web.Request) -> web.Response:
            """Answer ``GET /openapi.json``."""
            return json_response(described)

        routes.append(Route("GET", "/openapi.json", openapi, "This description", media=JSON))
        described |= describe(routes)
        # Before all others: what those refuse is told in its shape, too.
        app.middlewares.insert(0, tell_mistakes)
        for route in routes:
            route.attach(app)

    def _reading(self) -> list[Route]:
        either = (Mistake, FeastMistake)
        return [
            Route(
                "POST", "/get-online-features", self.get_online_features, "Values of features, as Feast's clients ask",
                takes=OnlineFeaturesRequest, answer=OnlineFeaturesAnswer,
                failures=mistakes(408, 413, 422, 503, 504) | {400: either, 404: either},
                parameters=(
                    Parameter(
                        DEADLINE_HEADER, "How long the client waits, in milliseconds", required=False, place="header"
                    ),
                ),
            ),
            Route(
                "GET", "/explain", self.explain, "Why one served number is what it is",
                answer=AnyExplanation, parameters=(Parameter("feature", "group:feature"),), has_key=True,
                failures=mistakes(400, 404, 503),
            ),
        ]  # fmt: skip

    def _telling(self) -> list[Route]:
        return [
            Route("GET", "/health", self.alive, "Whether the process runs its loop"),
            Route(
                "GET", "/ready", self.ready, "Whether reads work", answer=Readiness, failures={503: (Readiness,)}
            ),
            Route(
                "GET", "/ready/ingest", self.ready_ingest, "Whether partitions are owned, restored and read",
                answer=IngestReadiness, failures={503: (IngestReadiness,)},
            ),
            Route("GET", "/metrics", self.metrics, "Metrics for Prometheus", media="text/plain"),
        ]  # fmt: skip

    async def get_online_features(self, request: web.Request) -> web.Response:
        """Answer ``POST /get-online-features``."""
        try:
            told = request.headers.get(DEADLINE_HEADER)
            deadline_ms = deadline_of(told) if told is not None else DEADLINE_MS
            body = await read_body(request, deadline_ms=self._body_deadline_ms)
        except RequestError as error:
            return response(self._reads.refuse(failure(error, path=request.path)))
        answer = self._reads.answer(body, deadline_ms=deadline_ms)
        return response(answer if isinstance(answer, Answer) else await answer)

    async def explain(self, request: web.Request) -> web.Response:
        """Answer ``GET /explain``."""
        try:
            explanation = await self._explainer().explain(parse_explain(request.query.items()))
        except ANSWERED as error:
            return response(failure(error, path=request.path))
        return json_response(explanation.model_dump())

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

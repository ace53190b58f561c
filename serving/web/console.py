"""The console: what the page at ``/`` shows of definitions and of the worker, and the files that it is made of.

The page has no build step and asks nothing of any other host. Its policy forbids inline scripts and styles and, where
the browser knows it, every way of turning text into markup: what users and events say is shown as text.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from importlib.resources import files
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field

from core.catalogue import catalogue
from core.definitions import FeatureGroup, FeatureService, OnDemandGroup, OnDemandSource, Registry
from core.metrics import Metrics
from core.plans import GroupPlan
from core.ports import Clock
from core.values import ValueType
from core.windows import to_ms
from serving.answers.progress_board import ProgressBoard
from serving.answers.read_plans import Planner, key_types
from serving.explain.explainer import define
from serving.models import Answer, Definition, IngestReadiness, Version
from serving.web.answer import json_response, response
from serving.web.figures import EntityFigures, Figures, read_metrics
from serving.web.health import Health
from serving.web.mistakes import told
from serving.web.routes import Parameter, Route, mistakes

_MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Asked for again each time, and answered with 304: a new version is seen at once.
    "Cache-Control": "no-cache",
}


class Column(Answer):
    """A column of a request: of an entity's key, or what else a value is computed from."""

    name: str
    type: str


class GroupShown(Answer):
    """A group with all that it serves."""

    name: str
    owner: str
    description: str
    entity: str
    keys: list[Column]
    sources: list[str]
    version: Version
    tier: str
    cached: bool = Field(description="Whether its rows are in the cache too, or in the record alone.")
    every_ms: int = Field(description="Shortest time between two publications of a changed row.")
    soft_ttl_ms: int = Field(description="Age from which a copy is read again.")
    max_age_ms: int | None = Field(description="Age of the newest event from which the row is not served, or null.")
    features: list[Definition]


class ServiceShown(Answer):
    """What a model reads together."""

    name: str
    owner: str
    description: str
    features: list[str] = Field(description="group:feature, in the order of the answer.")


class MadeOnDemand(Definition):
    """A value that is made when it is asked for, and what it is made from."""

    columns: list[Column] = Field(description="What a request must have: the key, and what is computed from.")
    inputs: dict[str, str] = Field(description="By the function's parameter, the feature that it is given.")


class OnDemandShown(Answer):
    """An on-demand group, or an on-demand source."""

    name: str
    kind: Literal["computed", "fetched"] = Field(description="By functions of a group, or by that of a source.")
    owner: str
    description: str
    deadline_ms: int = Field(description="How long an answer waits for it.")
    features: list[MadeOnDemand]


class Catalogue(Answer):
    """Everything that is defined."""

    services: list[ServiceShown]
    groups: list[GroupShown]
    on_demand: list[OnDemandShown]
    function_processes: int = Field(
        description="Processes of this worker for what is made on demand; 0 where workers of other roles make it."
    )


class Console:
    """What a worker tells its page."""

    def __init__(
        self,
        registry: Registry,
        *,
        plans: Mapping[str, GroupPlan],
        planner: Planner,
        progress: ProgressBoard,
        health: Health,
        metrics: Metrics,
        clock: Clock,
        serves: bool,
        function_processes: int,
    ) -> None:
        self._registry = registry
        self._plans = plans
        self._planner = planner
        self._progress = progress
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._serves = serves
        self._function_processes = function_processes

    def catalogue(self) -> Catalogue:
        """Return services, groups and features, and what is made on demand."""
        defined: dict[str, list[Definition]] = {}
        for entry in catalogue(self._registry):
            defined.setdefault(entry.group, []).append(define(entry))
        on_demand: list[OnDemandGroup | OnDemandSource] = [*self._registry.on_demand, *self._registry.on_demand_sources]
        return Catalogue(
            services=[self._service(service) for service in self._registry.services],
            groups=[self._group(group, defined[group.name]) for group in self._registry.groups],
            on_demand=[self._on_demand(made, defined[made.name]) for made in on_demand],
            function_processes=self._function_processes,
        )

    async def figures(self) -> Figures:
        """Return how the worker stands."""
        ingest = IngestReadiness.model_validate(self._health.ingest())
        return Figures(
            instant_ms=self._clock.now_ms(),
            serves=self._serves,
            can_read=await self._health.can_read(),
            ingest=ingest,
            entities=await self._entities(),
            **read_metrics(self._metrics.registry),
        )

    def _service(self, service: FeatureService) -> ServiceShown:
        plan = self._planner.plan(features=None, service=service.name, full_names=True)
        return ServiceShown(
            name=service.name,
            owner=service.owner,
            description=service.description,
            features=list(plan.references),
        )

    def _group(self, group: FeatureGroup, features: list[Definition]) -> GroupShown:
        return GroupShown(
            name=group.name,
            owner=group.owner,
            description=group.description,
            entity=group.entity.name,
            keys=_columns(key_types(self._registry, group.entity)),
            sources=[source.topic for source in group.sources],
            version=Version(
                number=self._planner.version(group.name), fingerprint=self._plans[group.name].fingerprint.hex()
            ),
            tier=group.serving.tier,
            cached=group.writing.cached,
            every_ms=to_ms(group.writing.every),
            soft_ttl_ms=to_ms(group.serving.soft_ttl),
            max_age_ms=to_ms(group.serving.max_age) if group.serving.max_age is not None else None,
            features=features,
        )

    def _on_demand(self, made: OnDemandGroup | OnDemandSource, features: list[Definition]) -> OnDemandShown:
        inputs = {one.name: one.features for one in made.features} if isinstance(made, OnDemandGroup) else {}
        return OnDemandShown(
            name=made.name,
            kind="computed" if isinstance(made, OnDemandGroup) else "fetched",
            owner=made.owner,
            description=made.description,
            deadline_ms=to_ms(made.deadline),
            features=[self._made(feature, inputs.get(feature.feature, {})) for feature in features],
        )

    def _made(self, feature: Definition, inputs: Mapping[str, str]) -> MadeOnDemand:
        reference = f"{feature.group}:{feature.feature}"
        columns = self._planner.plan(features=[reference], service=None, full_names=True).columns
        return MadeOnDemand(**dict(feature), columns=_columns(columns), inputs=dict(inputs))

    async def _entities(self) -> list[EntityFigures]:
        entities = self._registry.entities
        places = [(name, number) for name, entity in entities.items() for number in range(entity.partitions)]
        known = await self._progress.as_of_ms(places)
        figures = []
        for name, entity in entities.items():
            times = [time_ms for (owner, _), time_ms in known.items() if owner == name and time_ms]
            figures.append(
                EntityFigures(
                    entity=name,
                    partitions=entity.partitions,
                    newest_as_of_ms=max(times, default=0),
                    oldest_as_of_ms=min(times, default=0),
                )
            )
        return figures


def _columns(kinds: Mapping[str, ValueType]) -> list[Column]:
    return [Column(name=name, type=kind.value) for name, kind in kinds.items()]


def console_routes(console: Callable[[], Console]) -> list[Route]:
    """Return the routes of the page and of what it asks for."""
    page = _read_page()

    async def show(request: web.Request) -> web.Response:
        """Answer ``GET /``, ``/docs`` and ``/page/…``."""
        return _file(page, request.match_info.get("file", "index.html"), request)

    async def show_catalogue(_request: web.Request) -> web.Response:
        """Answer ``GET /console/catalogue``."""
        return _model(console().catalogue())

    async def show_figures(_request: web.Request) -> web.Response:
        """Answer ``GET /console/figures``."""
        return _model(await console().figures())

    html = _MEDIA[".html"]
    file = Parameter("file", "Name of a stylesheet, module or image of the page.", place="path")
    return [
        Route("GET", "/", show, "The page: catalogue, look-up of an entity, live figures", media=html),
        Route("GET", "/docs", show, "This description, for people", media=html),
        Route(
            "GET", "/page/{file}", show, "A file of the page", media="*/*", parameters=(file,), failures=mistakes(404)
        ),
        Route("GET", "/console/catalogue", show_catalogue, "Services, groups and features", answer=Catalogue),
        Route("GET", "/console/figures", show_figures, "Live figures of this worker", answer=Figures),
    ]


def _read_page() -> dict[str, bytes]:
    """Return the files of the page by name: a name that is not among them is never looked for on disk."""
    return {file.name: file.read_bytes() for file in files("serving.web").joinpath("page").iterdir() if file.is_file()}


def _file(page: Mapping[str, bytes], name: str, request: web.Request) -> web.Response:
    body = page.get(name)
    if body is None:
        return response(told(404, "the page has no such file"))
    headers = {**PAGE_HEADERS, "ETag": f'"{blake2b(body, digest_size=8).hexdigest()}"'}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers={**headers, "Content-Type": _MEDIA[name[name.rindex(".") :]]})


def _model(answer: BaseModel) -> web.Response:
    return json_response(answer.model_dump())

"""Routes: each with its handler, and with what it takes and answers, so that none is attached without being described.

To add one, add a line to the ``table`` of whoever handles it, or hand it to ``Routes.attach`` as one of ``more``.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from aiohttp import web
from pydantic import BaseModel

from serving.models import Mistake

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Models: TypeAlias = tuple[type[BaseModel], ...]

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a URL.

    Attributes:
        place: ``query``, ``path`` or ``header``.
    """

    name: str
    meaning: str
    required: bool = field(default=True, kw_only=True)
    place: str = field(default="query", kw_only=True)


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    Attributes:
        summary: What it is for, in a sentence without a full stop.
        answer: Model of the JSON of a 200, or None where it is no JSON.
        media: Media type of a 200 that is no JSON, or None where it has no body.
        takes: Model of the JSON of the request's body, or None where it has none.
        failures: By status, the models of what else may be answered.
        has_key: Whether the query has an entity's key columns beside its parameters, each under its own name.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: type[BaseModel] | None = field(default=None, kw_only=True)
    media: str | None = field(default=None, kw_only=True)
    takes: type[BaseModel] | None = field(default=None, kw_only=True)
    parameters: tuple[Parameter, ...] = field(default=(), kw_only=True)
    failures: Mapping[int, Models] = field(default_factory=dict, kw_only=True)
    has_key: bool = field(default=False, kw_only=True)

    def attach(self, app: web.Application) -> None:
        """Add the route to a web application; a GET answers HEAD too."""
        if self.method == "GET":
            app.router.add_get(self.path, self.handler)
        else:
            app.router.add_route(self.method, self.path, self.handler)


def mistakes(*statuses: int) -> dict[int, Models]:
    """Return failures that are told as an object with ``detail``."""
    return dict.fromkeys(statuses, (Mistake,))

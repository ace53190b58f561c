"""Access: which route needs which scope, checked before any handler runs.

Every route is listed here, and one that is not needs ``admin``: who forgets to list a route has closed it. Without
configured keys nothing is checked, and nothing is added to a request; the worker then listens on loopback alone.

A key comes as ``Authorization: Bearer <key>``. What only reads also takes it as the password of ``Basic``, because that
is what a browser can be made to send; a browser sends it by itself, also when another site asks it to, so nothing that
changes something takes it.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from core.access import ApiKey, Scope, find_key
from core.errors import RequestError
from core.metrics import Metrics
from core.ports import Clock
from serving.web.answer import response
from serving.web.mistakes import failure

SCOPES: Mapping[str, Scope | None] = {
    # A load balancer and an orchestrator have no key.
    "/health": None,
    "/ready": None,
    "/ready/ingest": None,
    "/": Scope.READ,
    "/console/catalogue": Scope.READ,
    "/console/figures": Scope.READ,
    "/docs": Scope.READ,
    "/explain": Scope.READ,
    "/get-online-features": Scope.READ,
    "/metrics": Scope.READ,
    "/openapi.json": Scope.READ,
    "/page/{file}": Scope.READ,
    "/push": Scope.PUSH,
    "/write-to-online-store": Scope.PUSH,
}
"""Scope by the path of a route, as it was added to the router; None is open to everybody."""

_BEARER, _BASIC = 'Bearer realm="freshet"', 'Basic realm="freshet", charset="UTF-8"'
_MAY_SEE = web.RequestKey("may_see", bool)


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets requests through that have a key for what they ask.

    Attributes:
        keys: All that are configured; at least one.
    """

    keys: Sequence[ApiKey]
    clock: Clock
    metrics: Metrics

    def close(self, app: web.Application) -> None:
        """Put the gate before every route of an application, also those that are added later."""
        app.middlewares.append(self._middleware())

    def admits(self, authorization: str, path: str) -> bool:
        """Whether a request with this ``Authorization`` may have what needs a scope."""
        scope = SCOPES[path]
        try:
            _require(self._key_of(authorization, scope), scope)
        except RequestError:
            return False
        return True

    def _middleware(self) -> Middleware:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            # A path that does not exist is told to those alone who have a key; any will do.
            scope = SCOPES.get(resource.canonical, Scope.ADMIN) if resource is not None else None
            try:
                key = self._key_of(request.headers.get("Authorization", ""), scope)
                _require(key, scope)
            except RequestError as error:
                if resource is None or scope is not None:
                    return self._refusal(error, scope, path=request.path)
                request[_MAY_SEE] = False
            else:
                request[_MAY_SEE] = key.allows(Scope.READ)
            return await handler(request)

        return check

    def _key_of(self, authorization: str, scope: Scope | None) -> ApiKey:
        """Return the key that a request presents in its ``Authorization``.

        Raises:
            RequestError: 401: there is none, it is unknown, or it has expired.
        """
        presented = presented_key(authorization, basic=scope in (Scope.READ, None))
        if not presented:
            raise _unauthorized("this worker needs a key: Authorization: Bearer <key>")
        key = find_key(self.keys, presented)
        if key is None:
            raise _unauthorized("the key is none that this worker knows")
        if key.is_expired(self.clock.now_ms()):
            raise _unauthorized(f"the key of {key.name!r} expired at the end of {key.last_day}")
        return key

    def _refusal(self, error: RequestError, scope: Scope | None, *, path: str) -> web.Response:
        self.metrics.refused(error.status)
        refusal = response(failure(error, path=path))
        if error.status == 401:
            refusal.headers.add("WWW-Authenticate", _BEARER)
            if scope is Scope.READ:
                refusal.headers.add("WWW-Authenticate", _BASIC)
        return refusal


def may_see_figures(request: web.Request) -> bool:
    """Whether an open route may tell more than whether the worker works: without a gate always."""
    return _MAY_SEE not in request or request[_MAY_SEE]


def presented_key(header: str, *, basic: bool) -> str:
    """Return the key in an ``Authorization`` header, or an empty text.

    Args:
        header: Its value.
        basic: Whether the password of ``Basic`` counts too.

    >>> presented_key("Bearer abc", basic=False), presented_key("Basic OmFiYw==", basic=True)
    ('abc', 'abc')
    >>> presented_key("Basic OmFiYw==", basic=False)
    ''
    """
    kind, _, rest = header.partition(" ")
    if kind.lower() == "bearer":
        return rest.strip()
    if basic and kind.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _require(key: ApiKey, scope: Scope | None) -> None:
    if scope is not None and not key.allows(scope):
        raise RequestError(
            403, f"the key of {key.name!r} allows {', '.join(sorted(key.scopes))}; this needs {scope}",
            "FeastPermissionError",
        )  # fmt: skip


def _unauthorized(detail: str) -> RequestError:
    # Feast's clients raise it as their own class instead of a RuntimeError.
    return RequestError(401, detail, "FeastPermissionError")

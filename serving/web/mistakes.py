"""Mistakes: everything that is wrong, told in one shape, whoever found it.

It is an object with ``detail``: what is wrong, where, and what to do; a push that is refused for some of its rows has
them in ``rows``, too. On the routes that Feast's clients ask, what they know by class comes as they expect it: a JSON
string that holds JSON, with module, class and message, which they raise again as their own.
"""

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import TypeAlias

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from core.errors import FormatError, RequestError, StoreError
from serving.models import Mistake, RowMistake
from serving.web.answer import RETRY_AFTER_S, Answer, response

log = logging.getLogger(__name__)

ANSWERED = (RequestError, StoreError, FormatError)
"""Errors that are answers."""

AnsweredError: TypeAlias = RequestError | StoreError | FormatError

FEAST_PATHS = frozenset(("/get-online-features", "/push", "/write-to-online-store"))


def told(status: int, detail: str, *, rows: Sequence[RowMistake] = (), retry_after: str | None = None) -> Answer:
    """Return the answer that says what is wrong."""
    mistake = Mistake(detail=detail, rows=list(rows) or None)
    return Answer(status, orjson.dumps(mistake.model_dump(exclude_none=True)), retry_after)


def failure(error: AnsweredError, *, path: str) -> Answer:
    """Return the answer that an error is, to who asked for a path."""
    if isinstance(error, RequestError):
        if error.kind is None or path not in FEAST_PATHS:
            return told(error.status, error.detail)
        inner = json.dumps({"module": "feast.errors", "class": error.kind, "message": error.detail})
        return Answer(error.status, orjson.dumps(inner))
    if isinstance(error, StoreError):
        log.warning("read failed: %s", error)
        return told(503, "the record store gives no answer; try again", retry_after=RETRY_AFTER_S)
    log.error("stored row unreadable: %s", error)
    return told(500, "a stored row cannot be read; the server's log says which")


@web.middleware
async def tell_mistakes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell what the web server itself refuses, and what nobody foresaw, in the same shape as all that is wrong."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        refusal = response(told(error.status, _refused(request, error)))
        if "Allow" in error.headers:
            refusal.headers["Allow"] = error.headers["Allow"]
        return refusal
    except Exception:  # a bug: whoever asked parses JSON whatever comes, and learns nothing of our insides
        log.exception("a request failed", extra={"path": request.path})
        return response(told(500, "the worker failed at this; its log says why"))


def _refused(request: web.Request, error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPNotFound):
        return "there is no such route in this worker; /openapi.json describes those that there are"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{request.method[:16]} is not for this route; {' or '.join(sorted(error.allowed_methods))} is"
    return error.reason

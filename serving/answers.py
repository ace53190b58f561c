"""Answers: JSON bodies, mistakes and failures as Feast's clients expect them, and the bounded reading of a body."""

import asyncio
import json
import logging
from typing import Any, NamedTuple, TypeAlias

import orjson
from aiohttp import web

from core.errors import FormatError, RequestError, StoreError
from serving.requests import BODY_BYTES_MAX

log = logging.getLogger(__name__)

RETRY_AFTER_S = "1"
ANSWERED = (RequestError, StoreError, FormatError)
"""Errors that are answers."""

AnsweredError: TypeAlias = RequestError | StoreError | FormatError


class Answer(NamedTuple):
    """What is answered, in JSON, whoever carries it.

    Attributes:
        retry_after: Seconds after which to try again, where that may help.
    """

    status: int
    body: bytes
    retry_after: str | None = None


def failure(error: AnsweredError) -> Answer:
    """Return the answer that an error is."""
    if isinstance(error, RequestError):
        return mistake(error)
    if isinstance(error, StoreError):
        log.warning("read failed: %s", error)
        detail = "the record store gives no answer; try again"
        return Answer(503, orjson.dumps({"detail": detail}), RETRY_AFTER_S)
    log.error("stored row unreadable: %s", error)
    return Answer(500, orjson.dumps({"detail": "a stored row cannot be read; the server's log says which"}))


def mistake(error: RequestError) -> Answer:
    """Return a client's mistake as Feast's clients expect it.

    An error that they know by class comes as a JSON string that holds JSON; any other as an object with ``detail``.
    """
    if error.kind is None:
        return Answer(error.status, orjson.dumps({"detail": error.detail}))
    inner = json.dumps({"module": "feast.errors", "class": error.kind, "message": error.detail})
    return Answer(error.status, orjson.dumps(inner))


def response(answer: Answer) -> web.Response:
    """Return an answer as the web server carries it."""
    headers = {"Retry-After": answer.retry_after} if answer.retry_after is not None else None
    return web.Response(body=answer.body, status=answer.status, content_type="application/json", headers=headers)


def json_response(content: Any, *, status: int = 200, retry_after: str | None = None) -> web.Response:
    """Return an answer with a JSON body."""
    return response(Answer(status, orjson.dumps(content), retry_after))


def error_response(error: RequestError) -> web.Response:
    """Return a client's mistake."""
    return response(mistake(error))


async def read_body(request: web.Request, *, deadline_ms: int) -> bytes:
    """Return the body of a request.

    Raises:
        RequestError: 400, 408 or 413: it cannot be decoded, did not come in time, or is too large.
    """
    try:
        async with asyncio.timeout(deadline_ms / 1000):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise RequestError(413, f"the body is larger than the limit of {BODY_BYTES_MAX} bytes") from error
    except web.RequestPayloadError as error:
        raise RequestError(400, "the body is not what Content-Encoding or Transfer-Encoding says") from error
    except (ConnectionResetError, RuntimeError) as error:
        # What aiohttp raises if the connection is closed before it waits for more.
        if isinstance(error, RuntimeError) and request.transport is not None and not request.transport.is_closing():
            raise
        # Nobody hears it; without it the web server logs a trace for every client that goes.
        raise RequestError(400, "the connection was closed before the body was complete") from error
    except TimeoutError as error:
        raise RequestError(408, f"the body was not complete within {deadline_ms} ms") from error

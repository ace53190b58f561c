"""Answers: what is sent back, whoever carries it, and the bounded reading of a body."""

import asyncio
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from core.errors import RequestError
from serving.answers.requests import BODY_BYTES_MAX

RETRY_AFTER_S = "1"


class Answer(NamedTuple):
    """What is answered, in JSON, whoever carries it.

    Attributes:
        retry_after: Seconds after which to try again, where that may help.
    """

    status: int
    body: bytes
    retry_after: str | None = None


def response(answer: Answer) -> web.Response:
    """Return an answer as the web server carries it."""
    headers = {"Retry-After": answer.retry_after} if answer.retry_after is not None else None
    return web.Response(body=answer.body, status=answer.status, content_type="application/json", headers=headers)


def json_response(content: Any, *, status: int = 200, retry_after: str | None = None) -> web.Response:
    """Return an answer with a JSON body."""
    return response(Answer(status, orjson.dumps(content), retry_after))


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

"""Answers: JSON bodies, a client's mistakes as Feast's clients expect them, and the bounded reading of a body."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from core.errors import RequestError
from serving.requests import BODY_BYTES_MAX

RETRY_AFTER_S = "1"


def json_response(content: Any, *, status: int = 200, retry_after: str | None = None) -> web.Response:
    """Return an answer with a JSON body."""
    headers = {"Retry-After": retry_after} if retry_after is not None else None
    return json_body(orjson.dumps(content), status=status, headers=headers)


def json_body(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer whose body is JSON already."""
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def error_response(error: RequestError) -> web.Response:
    """Return a client's mistake as Feast's clients expect it.

    An error that they know by class comes as a JSON string that holds JSON; any other as an object with ``detail``.
    """
    if error.kind is None:
        return json_response({"detail": error.detail}, status=error.status)
    inner = json.dumps({"module": "feast.errors", "class": error.kind, "message": error.detail})
    return json_response(inner, status=error.status)


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
    except TimeoutError as error:
        raise RequestError(408, f"the body was not complete within {deadline_ms} ms") from error

"""The log: what must never stand in it."""

import asyncio
import io
import logging
import logging.config

import pytest
from aiohttp import web

from app.logs import logging_config


@pytest.fixture
def log():
    """What a worker logs, until the test ends."""
    root, server = logging.getLogger(), logging.getLogger("aiohttp.server")
    before = root.handlers[:], root.level, server.filters[:]
    logging.config.dictConfig(logging_config("INFO"))
    (handler,) = root.handlers
    written = io.StringIO()
    handler.setStream(written)
    yield written
    root.handlers, root.level, server.filters = before


async def test_a_key_in_a_request_that_is_no_http_is_not_logged(log):
    """
    A space before the colon is forbidden. The web server logged a trace of ten lines with the whole header in it, key
    and all; and whoever can connect could fill the disk with such traces.
    """
    runner = web.AppRunner(web.Application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer freshet_secret\r\n\r\n")

    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await runner.cleanup()

    logged = log.getvalue()
    assert answer.startswith(b"HTTP/1.0 400")
    assert "freshet_secret" not in logged
    assert logged.count("\n") == 1
    assert "WARNING aiohttp.server: Error handling request from 127.0.0.1 error=" in logged

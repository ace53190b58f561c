"""A proxy before DynamoDB Local that records calls and does what that server never does: throttle, stall, answer in part."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

TYPE = "application/x-amz-json-1.0"


class Proxy:
    """Forwards each call, or gives it to the first fault that waits.

    A fault is a coroutine of (proxy, operation, body) that returns (status, answer).
    """

    def __init__(self, upstream) -> None:
        self.upstream = upstream
        self.calls = []
        self.faults = []
        self.url = ""
        self.ended = asyncio.Event()

    async def forward(self, operation, body):
        headers = {
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Content-Type": TYPE,
            "Authorization": self._signed,
        }
        async with self._client.post(self.upstream, data=json.dumps(body), headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def _handle(self, request):
        self._signed = request.headers["Authorization"]
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        body = await request.json()
        fault = self.choose(operation, body)
        status, answer = await fault(self, operation, body)
        return web.Response(status=status, text=json.dumps(answer), content_type=TYPE)

    def choose(self, operation, body):
        """Return the fault that a call is given to, or ``forward``."""
        self.calls.append((operation, body))
        return self.faults.pop(0) if self.faults else Proxy.forward


@asynccontextmanager
async def open_proxy(upstream, kind=Proxy):
    proxy = kind(upstream)
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/", proxy._handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as client:
        proxy._client = client
        try:
            yield proxy
        finally:
            proxy.ended.set()
            await runner.cleanup()


def refuse(code, message="refused", status=400):
    async def fault(proxy, operation, body):
        return status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message}

    return fault


async def hang(proxy, operation, body):
    """Give no answer while the test lasts; the end of the proxy waits for its handlers."""
    await proxy.ended.wait()
    return 500, {}


async def lose_the_answer(proxy, operation, body):
    await proxy.forward(operation, body)
    return 500, {"__type": "InternalServerError"}


def fail_statements(code, count):
    """A 200 whose first statements failed, as far as anybody is told."""

    async def fault(proxy, operation, body):
        left = {**body, "Statements": body["Statements"][count:]}
        status, answer = await proxy.forward(operation, left) if left["Statements"] else (200, {"Responses": []})
        failed = [{"Error": {"Code": code, "Message": "as told"}}] * count
        return status, {"Responses": failed + answer["Responses"]}

    return fault


def leave_keys(count):
    """A 200 that leaves the first keys unprocessed."""

    async def fault(proxy, operation, body):
        ((table, asked),) = body["RequestItems"].items()
        left = {**asked, "Keys": asked["Keys"][:count]}
        done = {table: {**asked, "Keys": asked["Keys"][count:]}}
        status, answer = (
            (200, {"Responses": {}})
            if not done[table]["Keys"]
            else await proxy.forward(operation, {"RequestItems": done})
        )
        return status, {**answer, "UnprocessedKeys": {table: left}}

    return fault

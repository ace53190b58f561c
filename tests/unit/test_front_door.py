"""The front door before the web server: nobody can tell who answered, and nobody can block it."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, web

from core.metrics import Metrics
from serving.answers.requests import BODY_BYTES_MAX
from serving.turns import Turns
from serving.web.answer import Answer
from serving.web.front_door import FrontDoor
from serving.web.heads import read_head
from serving.web.reads import DEADLINE_MS, Reads
from tests.clock import ManualClock, Seconds
from tests.serving_kit import ServingKit, impression

NOW_MS = 1_700_000_000_000
BODY = json.dumps({"entities": {"user_id": [1]}, "features": ["user_engagement:impressions_1h"]}).encode()


class House:
    """A door, the web server behind it, and who came through to that."""

    def __init__(self, kit: ServingKit) -> None:
        self.time = Seconds()
        self.through: list[str] = []
        self.admitted = True
        self.reads: Any = Reads(lambda: kit.server, kit.metrics)
        self.door = FrontDoor(self, admits=lambda _: self.admitted, monotonic=self.time)  # type: ignore[arg-type]
        self.port = 0
        self._app = kit.web_app()
        self._app.middlewares.append(self._watch())

    def answer(self, body: bytes, *, deadline_ms: int = 0, came_at: float | None = None) -> Any:
        """Play the reads of the door."""
        return self.reads.answer(body, deadline_ms=deadline_ms, came_at=came_at)

    def _watch(self) -> Any:
        @web.middleware
        async def watch(request: web.Request, handler: Any) -> web.StreamResponse:
            self.through.append(request.path)
            return await handler(request)

        return watch

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["House"]:
        """Listen."""
        runner = web.AppRunner(self._app)
        await runner.setup()
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(self.door.protocol(runner.server), "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        self.door.open()
        try:
            yield self
        finally:
            listening.close()
            await self.door.close()
            await runner.cleanup()


@pytest.fixture
async def house():
    kit = ServingKit(ManualClock(NOW_MS), keeps_copies=True)
    await kit.take("impressions", impression(NOW_MS, user=1))
    async with House(kit).open() as house:
        yield house


def post(body: bytes = BODY, *headers: str, path: str = "/get-online-features") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: freshet", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answers(reader: asyncio.StreamReader, count: int) -> list[tuple[int, bytes]]:
    """Read so many answers as strictly as a client does."""
    found = []
    for _ in range(count):
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        found.append((int(head[0].split()[1]), await reader.readexactly(int(headers["content-length"]))))
    return found


async def ask(house: House, *pieces: bytes, count: int = 1) -> list[tuple[int, bytes]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        return await answers(reader, count)
    finally:
        writer.close()


def values(answer: tuple[int, bytes]) -> list[Any]:
    assert answer[0] == 200, answer
    return [result["values"] for result in json.loads(answer[1])["results"]]


@pytest.mark.parametrize(
    "pieces",
    [
        [post()],
        [post()[:20], post()[20:]],
        [post()[: -len(BODY)], BODY],
        [post(BODY, "Accept: */*", "Connection: keep-alive", "X-Whatever: 1")],
    ],
    ids=["at once", "head in two", "body later", "with more headers"],
)
async def test_a_plain_request_is_answered_at_the_door(house, pieces):
    """
    Clients send head and body in one piece or in several; that is nothing to send them to the slower server for.
    """
    answer = await ask(house, *pieces)

    assert values(answer[0]) == [[1], [1]]
    assert house.through == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health HTTP/1.1\r\nHost: freshet\r\n\r\n",
        post(BODY, "Expect: 100-continue"),
        post(BODY, "Connection: close"),
        post(BODY, "Content-Encoding: identity"),
        post(path="/get-online-features?x=1"),
        post().replace(b"HTTP/1.1", b"HTTP/1.0"),
        post(BODY, "Connection: upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    ],
    ids=["another route", "expects", "closes", "encoded", "with a query", "old protocol", "offers another protocol"],
)
async def test_what_is_not_plain_goes_to_the_web_server_whole(house, request_bytes):
    """
    The door knows one kind of request; whoever sends another is served as if there were no door. Java's HTTP client
    offers HTTP/2 with its first request: the parser raises an error of its own at that, which cut the connection off.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(request_bytes)
    status = (await asyncio.wait_for(reader.readline(), 5)).split()[1]
    writer.close()

    assert status in (b"200", b"100")
    assert len(house.through) == 1


async def test_a_header_that_the_web_server_refuses_is_refused(house):
    """
    What is too long for one of the two is too long for a client, whichever it meets.
    """
    answer = await ask(house, post(BODY, "X-Whatever: " + "x" * 9_000))

    assert answer[0][0] == 400


async def test_a_body_in_chunks_goes_to_the_web_server(house):
    """
    Only one of the two servers may say where a body ends.
    """
    chunked = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

    answer = await ask(house, chunked + body)

    assert values(answer[0]) == [[1], [1]]
    assert house.through == ["/get-online-features"]


async def test_a_connection_goes_on_behind_the_door_where_it_was_at_it(house):
    """
    A client that reads features and then asks for health on one connection gets both answers, in order.
    """
    health = b"GET /health HTTP/1.1\r\nHost: freshet\r\n\r\n"

    found = await ask(house, post() + health + post(), count=3)

    assert [status for status, _ in found] == [200, 200, 200]
    assert values(found[0]) == values(found[2]) == [[1], [1]]
    assert house.through == ["/health", "/get-online-features"]


async def test_requests_in_a_row_are_answered_in_their_order(house):
    """
    A client that does not wait for answers still gets each under its own question.
    """
    users = [1, 2, 1, 404]
    bodies = [
        json.dumps({"entities": {"user_id": [user]}, "features": ["user_taste:impressions_all"]}).encode()
        for user in users
    ]

    found = await ask(house, b"".join(map(post, bodies)), count=4)

    assert [values(answer)[0] for answer in found] == [[user] for user in users]


async def test_who_may_not_read_is_told_so_by_the_web_server(house):
    """
    The refusal of a missing key has one place, with its headers and its count.
    """
    house.admitted = False

    await ask(house, post())

    assert house.through == ["/get-online-features"]


@pytest.mark.parametrize(
    "head",
    [
        post(b"{}", "Content-Length: 3"),
        post(b"{}", "Transfer-Encoding: chunked"),
        post(b"{}").replace(b"Content-Length: 2", b"Content-Length: +2"),
        post(b"{}").replace(b"Content-Length: 2", b"Content-Length: 2, 2"),
        post(b"{}").replace(b"Host: freshet\r\n", b"Host: freshet\n"),
        post(b"{}").replace(b"Content-Length: 2", f"Content-Length: {BODY_BYTES_MAX + 1}".encode()),
        post(b"{}").replace(b"Content-Length: 2", b"Content-Length: " + b"2".zfill(5_000)),
        post(b"{}").replace(b"Content-Length: 2\r\n", b""),
        b"\r\n" + post(b"{}"),
    ],
    ids=[
        "two lengths", "two ways", "signed", "a list", "bare line feed", "too long", "many zeros", "none",
        "empty line before",
    ],
)  # fmt: skip
def test_a_request_with_two_meanings_is_not_for_the_door(head):
    """
    Where a proxy and we read a request differently, one user's request could ride in another's. A length of thousands
    of zeros was an error of Python's in the door.
    """
    assert read_head(head[: head.index(b"\r\n\r\n") + 4]) is None


async def test_mistakes_are_told_at_the_door_as_behind_it(house):
    """
    A client's error text does not depend on how its HTTP library writes requests.
    """
    wrong = b'{"entities": {"user_id": ["1"]}, "features": ["user_engagement:impressions_1h"]}'

    at_door = (await ask(house, post(wrong)))[0]
    async with ClientSession() as session:
        url = f"http://127.0.0.1:{house.port}/get-online-features?behind"
        async with session.post(url, data=wrong) as response:
            behind = response.status, await response.read()

    assert at_door == behind
    assert at_door[0] == 400


class SlowReads:
    """Reads that wait until they are told to go on."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.bodies: list[bytes] = []

    def answer(self, body: bytes, *, deadline_ms: int = 0, came_at: float | None = None) -> Any:
        """Answer what was asked, later."""
        self.bodies.append(body)
        self.asked.set()
        return self._wait(body)

    async def _wait(self, body: bytes) -> Answer:
        await self.go_on.wait()
        return Answer(200, body)


async def test_a_read_that_waits_for_a_store_holds_up_its_own_connection_only(house):
    """
    A slow record must not stop those whose rows are here.
    """
    house.reads, quick = SlowReads(), house.reads
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post(b"1") + post(b"2"))
    await house.reads.asked.wait()
    slow, house.reads = house.reads, quick

    assert values((await ask(house, post()))[0]) == [[1], [1]]
    assert slow.bodies == [b"1"]
    house.reads = slow
    slow.go_on.set()
    assert await answers(reader, 2) == [(200, b"1"), (200, b"2")]
    writer.close()


async def test_the_door_knows_how_long_a_client_waits_and_leaves_to_the_server_what_it_cannot_read(house):
    """
    A deadline that counted on one way and not on the other would be found in production.
    """
    told = []
    house.reads.answer = lambda _, *, deadline_ms, came_at: told.append(deadline_ms) or Answer(200, b"{}")
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post(b"1", "Freshet-Deadline-Ms: 70") + post(b"2"))
    await answers(reader, 2)
    writer.close()

    assert told == [70, DEADLINE_MS]
    assert read_head(post(b"", "Freshet-Deadline-Ms: soon")) is None
    assert read_head(post(b"", "Freshet-Deadline-Ms: 0")) is None
    assert read_head(post(b"", f"Freshet-Deadline-Ms: {'1' * 5_000}")) is None


async def closed(house: House, sent: Sequence[bytes], *, after_s: float) -> bool:
    """Whether a connection that has sent something is closed once so much time has passed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    for piece in sent:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)
    house.time.now += after_s
    house.door.sweep()
    try:
        while await asyncio.wait_for(reader.read(1 << 16), 0.2):
            pass
    except TimeoutError:
        return False
    else:
        return True
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [[], [b"POST /get"], [post()[:-3]], [b"GET / HTTP/1.1\r\nX: "]])
async def test_who_dribbles_a_request_is_shown_the_door(house, sent):
    """
    A thousand clients that send a byte a minute must not keep a thousand connections.
    """
    assert not await closed(house, sent, after_s=7)
    assert await closed(house, sent, after_s=9)


async def test_a_client_that_has_asked_may_rest(house):
    """
    A pool keeps its connections between requests.
    """
    assert not await closed(house, [post()], after_s=60)
    assert await closed(house, [post()], after_s=80)


async def test_a_client_that_takes_no_answers_is_cut_off(house):
    """
    Answers that nobody reads must not pile up in the worker.
    """
    body = b"x" * (1 << 20)

    class Large:
        def answer(self, _: bytes, *, deadline_ms: int = 0, came_at: float | None = None) -> Answer:
            return Answer(200, body)

    house.reads = Large()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1 << 10)
    for _ in range(40):
        writer.write(post(b"{}"))
    await asyncio.sleep(0.2)
    house.time.now += 11
    house.door.sweep()

    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await reader.readexactly(40 << 20)
    writer.close()


class Echo:
    """Reads that answer what was asked, as often as asked for."""

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.asked = 0

    def answer(self, body: bytes, *, deadline_ms: int = 0, came_at: float | None = None) -> Answer:
        """Answer at once."""
        self.asked += 1
        return Answer(200, body * self.times)


async def test_a_client_that_sends_thousands_of_requests_at_once_stops_nobody(house):
    """
    9,000 requests in one breath, 1.4 MB, were answered in one turn of the loop, each of which moved what was left: the
    worker did nothing else for 2.4 to 7 seconds, not even answer its health.
    """
    house.reads = echo = Echo()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post(b"1") * 9_000)
    turns = 0
    while echo.asked < 1_000:
        before = echo.asked
        await asyncio.sleep(0)
        assert echo.asked <= before + 1
        turns += 1

    assert turns >= 1_000
    assert await answers(reader, 9_000) == [(200, b"1")] * 9_000
    writer.close()


async def test_what_a_client_sends_ahead_of_its_answers_is_bounded(house):
    """
    Each answer that had to be waited for let 256 KB more in for the 150 bytes that it took: 26 MB in four seconds.
    """

    class Waiting:
        def answer(self, body: bytes, *, deadline_ms: int = 0, came_at: float | None = None) -> Any:
            return self._wait(body)

        async def _wait(self, body: bytes) -> Answer:
            await asyncio.sleep(0)
            return Answer(200, body)

    house.reads = Waiting()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post(b"1") * 60_000)
    largest = 0
    for _ in range(300):
        await answers(reader, 1)
        largest = max(largest, *(len(known._buffer) for known in house.door._connections))

    assert BODY_BYTES_MAX < largest < BODY_BYTES_MAX + (1 << 20)
    writer.transport.abort()


async def test_a_client_that_reads_late_gets_everything_it_asked_for(house):
    """
    While a client took no answers its requests were not read any more, and when it did take them, never again.
    """
    house.reads = Echo()
    body = b"y" * 100_000
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1 << 10)
    sending = asyncio.create_task(_send_all(writer, [post(body)] * 200))
    await asyncio.sleep(0.3)

    assert not sending.done()
    assert await answers(reader, 200) == [(200, body)] * 200
    await sending
    writer.close()


async def _send_all(writer: asyncio.StreamWriter, requests: Sequence[bytes]) -> None:
    for request in requests:
        writer.write(request)
        await writer.drain()


async def test_a_client_that_closes_its_side_and_reads_late_gets_its_answers(house):
    """
    Of 40 answers of 1 MB a client that had sent its end got 4: the others were dropped with the closed connection.
    """
    house.reads = Echo(1 << 20)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1 << 10)
    writer.write(post(b"x") * 40)
    writer.write_eof()
    await asyncio.sleep(0.2)

    assert [len(body) for _, body in await answers(reader, 40)] == [1 << 20] * 40
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


@pytest.mark.parametrize("last", [post(b"2"), post(b"2")[:-1], b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", b""])
async def test_a_connection_ends_with_the_last_answer_after_the_clients_end(house, last):
    """
    Who has sent its end waits for ours, whatever it had sent before.
    """
    house.reads = SlowReads()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post(b"1") + last)
    writer.write_eof()
    await house.reads.asked.wait()

    house.reads.go_on.set()

    found = await asyncio.wait_for(reader.read(), 5)
    assert found.count(b"HTTP/1.1 200 OK") == 1 + (last == post(b"2"))
    writer.close()


async def test_a_client_that_takes_the_begin_of_an_answer_is_cut_off_too(house):
    """
    With less than 64 KB left to take, the connection was closed in good order, which takes as long as the client likes.
    """
    house.reads = Echo(60_000)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", house.port))
    left = 0
    while not 0 < left <= 60_000:
        client.send(post(b"z"))
        await asyncio.sleep(0.01)
        (connection,) = house.door._connections
        left = connection._transport.get_write_buffer_size()

    for _ in range(2):
        house.time.now += 80
        house.door.sweep()
        await asyncio.sleep(0.02)

    assert not house.door._connections
    client.close()


async def test_a_bug_in_a_read_costs_its_connection(house):
    """
    A client must not wait for an answer that nobody will write, whether its request came first or behind others.
    """

    class Buggy(Echo):
        def answer(self, body: bytes, *, deadline_ms: int = 0, came_at: float | None = None) -> Answer:
            if self.asked:
                raise RuntimeError("a bug")
            return super().answer(body)

    house.reads = Buggy()
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post(b"1") * 2)

    with contextlib.suppress(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    assert [str(error) for error in told] == ["a bug"]
    writer.close()


async def test_an_answer_on_its_way_is_given_before_the_door_closes(house):
    """
    A deployment stops a worker under load: nobody who was let in is sent away without an answer.
    """
    house.reads = SlowReads()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post(b"last"))
    await house.reads.asked.wait()

    closing = asyncio.create_task(house.door.close())
    await asyncio.sleep(0.02)
    house.reads.go_on.set()

    assert await answers(reader, 1) == [(200, b"last")]
    assert await asyncio.wait_for(reader.read(), 5) == b""
    await closing
    writer.close()


async def test_a_request_that_is_on_its_way_when_the_door_closes_is_answered(house):
    """
    Of eight clients that asked without a pause, three lost a request when their worker was stopped: their connections
    were closed as idle while it was under way. The answer tells them to ask elsewhere from now on.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post())
    await answers(reader, 1)
    closing = asyncio.create_task(house.door.close())
    await asyncio.sleep(0.05)

    writer.write(post())

    found = await asyncio.wait_for(reader.read(), 5)
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in found
    await closing
    writer.close()


async def test_a_client_that_rests_does_not_hold_up_the_end(house):
    """
    A pool keeps connections open for hours; a deployment does not wait for it.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post())
    await answers(reader, 1)

    await asyncio.wait_for(house.door.close(), 2)

    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_crowd_is_met_in_several_turns_of_the_loop(house):
    """
    Two thousand requests at once took half a second, and each answer of Redis that came meanwhile counted as none.
    """
    house.door.turns = Turns(budget_s=0)
    clients = [await asyncio.open_connection("127.0.0.1", house.port) for _ in range(20)]
    reads, met = house.reads, [0]

    def answer(body: bytes, *, deadline_ms: int, came_at: float | None) -> Any:
        met[-1] += 1
        return reads.answer(body, deadline_ms=deadline_ms, came_at=came_at)

    def turn() -> None:
        met.append(0)
        turning[0] = loop.call_soon(turn)

    loop = asyncio.get_running_loop()
    turning = [loop.call_soon(turn)]
    house.reads = SimpleNamespace(answer=answer)
    for _, writer in clients:
        writer.write(post())

    told = [await answers(reader, 1) for reader, _ in clients]

    turning[0].cancel()
    assert [values(one) for (one,) in told] == [[[1], [1]]] * len(clients)
    # What is done before the first of two looks, and after the second of another two, may be seen as one turn's.
    assert max(met) <= 2
    for _, writer in clients:
        writer.close()


class Line:
    """Turns of a door that is busy: what is to be done is done when the test says so."""

    def __init__(self) -> None:
        self.standing: list[Callable[[], None]] = []

    def do(self, work: Callable[[], None]) -> None:
        self.standing.append(work)

    def turn(self) -> None:
        standing, self.standing = self.standing, []
        for work in standing:
            work()


async def test_who_closes_his_side_while_his_request_stands_in_line_is_answered(house):
    """
    Only under load: his connection was closed without a byte, because nobody had begun to answer.
    """
    line = house.door.turns = Line()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post())
    writer.write_eof()
    await asyncio.sleep(0.05)
    line.turn()

    (answer,) = await answers(reader, 1)

    assert values(answer) == [[1], [1]]
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_request_that_stands_in_line_at_the_end_is_answered(house):
    """
    A deployment would lose what a busy worker has taken from the wire already.
    """
    line = house.door.turns = Line()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post())
    await asyncio.sleep(0.05)
    await house.door.close()
    line.turn()

    (answer,) = await answers(reader, 1)

    assert values(answer) == [[1], [1]]
    writer.close()


async def test_a_request_counts_from_when_it_came_not_from_when_it_was_its_turn(house):
    """
    A worker to whom a crowd had come told of answers within 50 us, and its clients had waited for 25 ms.
    """
    told: list[float] = []
    line = house.door.turns = Line()
    house.reads = SimpleNamespace(answer=lambda _, *, deadline_ms, came_at: told.append(came_at) or Answer(200, b"{}"))
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post())
    await asyncio.sleep(0.05)
    stood_until = time.perf_counter()
    line.turn()

    await answers(reader, 1)

    assert told[0] < stood_until
    writer.close()


async def test_time_in_line_is_part_of_the_deadline():
    """
    Who has stood in line for as long as its client waits would ask the stores for nobody.
    """
    metrics = Metrics()
    server: Any = SimpleNamespace(
        always_waits=False, line=(), answer=lambda _: asyncio.sleep(5), waits_for_stores_alone=lambda _: True
    )

    answer = await Reads(lambda: server, metrics).answer(BODY, deadline_ms=500, came_at=time.perf_counter() - 1)

    assert answer.status == 504
    assert metrics.registry.get_sample_value("feast_feature_server_request_latency_seconds_sum") >= 1


async def test_a_connection_that_has_gone_to_the_web_server_does_not_go_once_more(house):
    """
    Its request stood in line when the one before it was answered, and went both ways: what it pushed was pushed twice.
    """
    line = house.door.turns = Line()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: freshet\r\n\r\n")
    await asyncio.sleep(0.05)
    (connection,) = house.door._connections
    connection.resume_writing()
    await asyncio.sleep(0.05)
    line.turn()

    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200 OK")
    await asyncio.sleep(0.05)
    assert house.through == ["/health"]
    writer.close()

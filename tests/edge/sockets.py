"""Bytes that are no requests, or nearly: each connection is answered or closed, and nothing is a server's error."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from bench.serving.domain import USERS
from bench.serving.wire import HOST
from tests.edge.worker import request_of

_AT_ONCE = 32
_ANSWER_S = 15.0
_FINDINGS_MAX = 10
_PATIENCE_S = 0.1
_READ_BYTES = 1 << 16
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(slots=True)
class Sockets:
    """What became of connections.

    Attributes:
        statuses: Answers by status.
        findings: Bytes after which the server failed or hung, a few of them.
    """

    cases: int = 0
    errors: int = 0
    hangs: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


async def send_bytes(port: int, count: int, seed: int) -> Sockets:
    """Send so many broken requests."""
    found, numbers = Sockets(), iter(range(count))
    await asyncio.gather(*(_client(port, numbers, seed, found) for _ in range(_AT_ONCE)))
    return found


async def _client(port: int, numbers: "object", seed: int, found: Sockets) -> None:
    for number in numbers:  # type: ignore[attr-defined]
        sent = broken_request(random.Random(seed * 1_000_003 + number))  # noqa: S311  # the same every time
        found.cases += 1
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await _send(port, sent)
        except TimeoutError:
            found.hangs += 1
            _tell(found, f"case {number} of seed {seed} hangs: {sent[:200]!r}")
            continue
        statuses = [int(status) for status in _STATUS.findall(answer)]
        found.statuses.update(statuses)
        if any(status >= 500 and status != 505 for status in statuses):
            found.errors += 1
            _tell(found, f"case {number} of seed {seed} fails: {sent[:200]!r} -> {answer[:200]!r}")


async def _send(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(sent)
        answer = b""
        with suppress(TimeoutError):
            # A server that is told that nothing more comes need not answer; so it is told a moment later.
            async with asyncio.timeout(_PATIENCE_S):
                answer = await reader.read(_READ_BYTES)
        writer.write_eof()
        return answer + await reader.read()
    except ConnectionError:
        # It is closed: that is an answer.
        return b""
    finally:
        writer.transport.abort()


def _tell(found: Sockets, text: str) -> None:
    if len(found.findings) < _FINDINGS_MAX:
        found.findings.append(text)


def broken_request(chance: random.Random) -> bytes:
    """Return bytes that begin as requests do, or do not even that."""
    sent = b"".join(request_of(chance.randrange(USERS)) for _ in range(chance.choice((1, 1, 1, 2, 3))))
    for _ in range(chance.randint(1, 3)):
        sent = chance.choice(_BREAKS)(sent, chance)
    return sent


def _flip(sent: bytes, chance: random.Random) -> bytes:
    broken = bytearray(sent)
    for _ in range(chance.randint(1, 8)):
        if broken:
            broken[chance.randrange(len(broken))] = chance.randrange(256)
    return bytes(broken)


def _cut(sent: bytes, chance: random.Random) -> bytes:
    return sent[: chance.randrange(len(sent) + 1)]


def _leave_out(sent: bytes, chance: random.Random) -> bytes:
    start, end = sorted((chance.randrange(len(sent) + 1), chance.randrange(len(sent) + 1)))
    return sent[:start] + sent[end:]


def _repeat(sent: bytes, chance: random.Random) -> bytes:
    start, end = sorted((chance.randrange(len(sent) + 1), chance.randrange(len(sent) + 1)))
    return sent[:end] + sent[start:]


def _insert(sent: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(sent) + 1)
    return sent[:place] + chance.randbytes(chance.randint(1, 64)) + sent[place:]


def _lie_about_length(sent: bytes, chance: random.Random) -> bytes:
    told = chance.choice(
        (b"-1", b"0", b"1", b"99", b"99999999999999999999", b"+5", b"0x10", b"5 5", b"", b"5\r\nContent-Length: 7")
    )
    return re.sub(rb"Content-Length: \d+", b"Content-Length: " + told, sent, count=1)


def _chunk(sent: bytes, chance: random.Random) -> bytes:
    chunks = chance.choice(
        (b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffff\r\nx", b"5;x=y\r\nhell", b"")
    )
    head = sent.partition(b"\r\n\r\n")[0]
    return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks


def _flood_head(sent: bytes, chance: random.Random) -> bytes:
    line, _, rest = sent.partition(b"\r\n")
    more = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 50) for number in range(chance.choice((5, 150, 2_000))))
    return line + b"\r\n" + more + rest


def _other_line(sent: bytes, chance: random.Random) -> bytes:
    lines = (
        b"GET / HTTP/1.1", b"POST /get-online-features HTTP/1.0", b"POST /get-online-features HTTP/2.0", b"PRI * HTTP/2.0",
        b"OPTIONS * HTTP/1.1", b"HEAD /health HTTP/1.1", b"GET /explain?" + b"a" * 9_000 + b" HTTP/1.1", b"POST",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"TRACE /metrics HTTP/1.1", b"GET /explain?feature=%ff%00 HTTP/1.1",
        b"CONNECT localhost:22 HTTP/1.1", b"POST /get-online-features?x HTTP/1.1", b"post /get-online-features http/1.1",
        b"GET /page/..%2f..%2fsettings.py HTTP/1.1", b"GET http://[::1/health HTTP/1.1", b"GET //health HTTP/1.1",
    )  # fmt: skip
    return chance.choice(lines) + b"\r\n" + sent.partition(b"\r\n")[2]


_BREAKS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _cut, _leave_out, _repeat, _insert, _lie_about_length, _chunk, _flood_head, _other_line,
)  # fmt: skip

"""Requests whose client goes away: at any moment, with others on the same and on other connections."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from bench.serving.domain import USERS
from bench.serving.wire import HOST, read_answer
from tests.edge.worker import is_of, request_of

_CONNECTIONS = 32
_PIPELINED_MAX = 8
_ANSWER_S = 10.0
_FAILED_MAX = 100


@dataclass(slots=True)
class Cancelled:
    """What became of requests.

    Attributes:
        cancelled: Sent, and never answered to anybody.
        answered: Answered and compared.
        foreign: Answers with another's values.
        failed: Answers that were none, by status or error.
    """

    cancelled: int = 0
    answered: int = 0
    foreign: int = 0
    failed: Counter[str] = field(default_factory=Counter)


async def cancel_requests(port: int, count: int, seed: int) -> Cancelled:
    """Send requests until so many were cancelled, and compare the answers to the others."""
    found = Cancelled()
    await asyncio.gather(*(_client(port, count, random.Random(seed + number), found) for number in range(_CONNECTIONS)))  # noqa: S311  # the same every time
    return found


async def _client(port: int, count: int, chance: random.Random, found: Cancelled) -> None:
    while found.cancelled < count and found.failed.total() < _FAILED_MAX:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            await _talk(reader, writer, chance, found)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            found.failed[type(error).__name__] += 1
        finally:
            writer.transport.abort()


async def _talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: random.Random, found: Cancelled
) -> None:
    users = [chance.randrange(USERS) for _ in range(chance.randint(1, _PIPELINED_MAX))]
    wanted = chance.randint(0, len(users))
    writer.write(b"".join(map(request_of, users)))
    for user in users[:wanted]:
        async with asyncio.timeout(_ANSWER_S):
            status, body = await read_answer(reader)
        if status != 200:
            found.failed[str(status)] += 1
        elif is_of(user, body):
            found.answered += 1
        else:
            found.foreign += 1
    # Some go at once, others while their request is being answered.
    await asyncio.sleep(chance.choice((0, 0, 0.0005, 0.002)))
    found.cancelled += len(users) - wanted

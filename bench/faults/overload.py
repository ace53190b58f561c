"""Three times as many requests as there can be answers: how many are answered, how long these take, and the others."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import uvloop

from bench.faults.ground import Ground, ports
from bench.faults.readers import Readers, share_ms
from bench.serving.domain import USERS
from bench.serving.load import Answered, bodies, logged, saturate
from bench.serving.servers import OURS
from bench.serving.wire import raw_request

_CORE = 1
_TIMES = 3
_CONNECTIONS = 384


@dataclass(frozen=True, slots=True)
class Overload:
    """What became of requests.

    Attributes:
        peak_rps: Answers per second without overload.
        goodput: Share of that under overload.
        p99_ms: Of answers without overload, at as many connections as there are answers at once.
        accepted_p99_ms: Of answers under overload.
        rejected_p50_ms: Of rejections.
        failed: Answers that were neither.
    """

    peak_rps: float
    goodput: float
    p99_ms: float
    accepted_p99_ms: float
    rejected_p50_ms: float
    failed: int


def overload(ground: Ground, *, entities: int, local: bool, seconds: int) -> Overload:
    """Ask a worker for so many entities at once, as fast as it answers and then three times as fast.

    Args:
        ground: What runs.
        entities: Keys per request.
        local: Whether the worker with copies is asked, or one that reads Redis.
        seconds: How long each time.
    """
    worker = ground.intake if local else ground.serving[0]
    url, wanted = worker.base_url, bodies(OURS, users=USERS, entities=entities)
    saturate(url, wanted, connections=16, seconds=1, core=_CORE)
    peak = saturate(url, wanted, connections=16, seconds=seconds, core=_CORE)
    rps = int(_TIMES * peak.rps)
    if local:
        answers = logged(url, wanted[0], rps=rps, connections=_CONNECTIONS, seconds=seconds, core=_CORE)
    else:
        answers = _spaced(ports([worker])[0], wanted, rps=rps, seconds=seconds)
    accepted = [one.took_ms / 1000 for one in answers if one.status == 200]
    rejected = [one.took_ms for one in answers if one.status == 503]
    return Overload(
        peak_rps=peak.rps,
        goodput=len(accepted) / seconds / peak.rps,
        p99_ms=peak.p99_ms,
        accepted_p99_ms=share_ms(accepted, 0.99),
        rejected_p50_ms=median(rejected) if rejected else 0.0,
        failed=len(answers) - len(accepted) - len(rejected),
    )


def _spaced(port: int, wanted: Sequence[bytes], *, rps: float, seconds: int) -> list[Answered]:
    """Ask at a rate, evenly spaced: h2load lets all of its connections ask in the same moment, again and again."""
    requests = itertools.cycle([raw_request(body) for body in wanted])

    async def ask() -> list[Answered]:
        readers = Readers(port)
        answers = await readers.at_rate(rps, seconds, lambda: next(requests))
        readers.close()
        return [Answered(one.status, one.took_s * 1000) for one in answers]

    os.sched_setaffinity(0, {_CORE})
    return uvloop.run(ask())

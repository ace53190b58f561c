"""Reads as bytes: from the body of a request to the body of its answer, whoever carries them.

Two carry them: the worker's web server and, where there is nothing but this to do, the front door before it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from core.errors import StoreError
from core.metrics import Metrics
from serving.answers.requests import parse_request
from serving.answers.server import FeatureServer
from serving.web.admission import LATE_S, Admission
from serving.web.answer import RETRY_AFTER_S, Answer
from serving.web.heads import PATH
from serving.web.mistakes import ANSWERED, failure, told

DEADLINE_HEADER = "Freshet-Deadline-Ms"
DEADLINE_MS = 5_000
"""For who names none; nobody is given more."""

_BUSY = told(503, "too many reads wait; try again", retry_after=RETRY_AFTER_S)


class Reads:
    """Answers ``get-online-features`` for one worker."""

    def __init__(self, server: Callable[[], FeatureServer], metrics: Metrics) -> None:
        """Answer for a server that is asked for at each request: the routes are there before it."""
        self._server = server
        self._metrics = metrics
        self._admission = Admission()

    def answer(
        self, body: bytes, *, deadline_ms: int = DEADLINE_MS, came_at: float | None = None
    ) -> Answer | Coroutine[Any, Any, Answer]:
        """Return the answer to the body of a request, at once where nothing has to be waited for.

        Whoever is given a coroutine has to await it: its place among those who wait is taken until it ends.

        Args:
            body: JSON.
            deadline_ms: How long its client waits for it.
            came_at: When the request had come, on ``time.perf_counter``, if it has stood in line since.
        """
        started = time.perf_counter() if came_at is None else came_at
        server = self._server()
        if server.always_waits and not self._admission.admits(server.line):
            # Before anything is done for it: a request of many keys costs as much to be planned as to be answered.
            return self._told(_BUSY, started)
        try:
            request = parse_request(body)
            answered = server.answer(request)
        except ANSWERED as error:
            return self._told(failure(error, path=PATH), started)
        if isinstance(answered, bytes):
            return self._told(Answer(200, answered), started)
        if not self._admission.admits(server.line):
            answered.close()
            return self._told(_BUSY, started)
        deadline_ms = min(deadline_ms, DEADLINE_MS)
        # That a function takes long, or a client has no time, tells nothing of the stores.
        tells = server.waits_for_stores_alone(request) and deadline_ms / 1000 > LATE_S
        # Counted here, not where it begins: others who come in the same turn would be planned in vain.
        return self._wait(answered, self._admission.begin(), started, deadline_ms, tells=tells)

    def refuse(self, answer: Answer) -> Answer:
        """Count a request whose body never came whole."""
        return self._told(answer, time.perf_counter())

    async def _wait(
        self, answered: Coroutine[Any, Any, bytes], began_at: float, started: float, deadline_ms: int, *, tells: bool
    ) -> Answer:
        is_answered = True
        try:
            async with asyncio.timeout(started + deadline_ms / 1000 - time.perf_counter()):
                answer = Answer(200, await answered)
        except ANSWERED as error:
            is_answered = not isinstance(error, StoreError)
            answer = failure(error, path=PATH)
        except TimeoutError:
            is_answered = False
            answer = told(504, f"the stores gave no answer within {deadline_ms} ms")
        finally:
            self._admission.end(began_at, is_answered=is_answered, tells=tells)
        return self._told(answer, started)

    def _told(self, answer: Answer, started: float) -> Answer:
        self._metrics.request(answer.status, time.perf_counter() - started)
        return answer

"""Reads as bytes: from the body of a request to the body of its answer, whoever carries them.

Two carry them: the worker's web server and, where there is nothing but this to do, the front door before it.
"""

import time
from collections.abc import Awaitable, Callable

from core.metrics import Metrics
from serving.answers import ANSWERED, Answer, failure
from serving.requests import parse_request
from serving.server import FeatureServer


class Reads:
    """Answers ``get-online-features`` for one worker."""

    def __init__(self, server: Callable[[], FeatureServer], metrics: Metrics) -> None:
        """Answer for a server that is asked for at each request: the routes are there before it."""
        self._server = server
        self._metrics = metrics

    def answer(self, body: bytes) -> Answer | Awaitable[Answer]:
        """Return the answer to the body of a request, at once where nothing has to be waited for."""
        started = time.perf_counter()
        try:
            answered = self._server().answer(parse_request(body))
        except ANSWERED as error:
            return self._told(failure(error), started)
        if isinstance(answered, bytes):
            return self._told(Answer(200, answered), started)
        return self._wait(answered, started)

    def refuse(self, answer: Answer) -> Answer:
        """Count a request whose body never came whole."""
        return self._told(answer, time.perf_counter())

    async def _wait(self, answered: Awaitable[bytes], started: float) -> Answer:
        try:
            answer = Answer(200, await answered)
        except ANSWERED as error:
            answer = failure(error)
        return self._told(answer, started)

    def _told(self, answer: Answer, started: float) -> Answer:
        self._metrics.request(answer.status, time.perf_counter() - started)
        return answer

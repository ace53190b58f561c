"""The weather before DynamoDB: for a while it throttles, fails, or does a part of what it was asked."""

import random
from collections.abc import Callable
from typing import Any

from tests.dynamodb_proxy import Proxy, fail_statements, leave_keys, lose_the_answer, refuse

Weather = Callable[[random.Random, str, Any], Any]
"""Chooses what becomes of a call, or None for nothing."""


class WeatherProxy(Proxy):
    """Forwards calls as the weather allows.

    Attributes:
        weather: What it is now, or None for fine.
        chance: Decides about single calls.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.weather: Weather | None = None
        self.chance = random.Random(0)

    def choose(self, operation: str, body: Any) -> Any:
        return (self.weather and self.weather(self.chance, operation, body)) or Proxy.forward


def throttling(chance: random.Random, operation: str, body: Any) -> Any:
    """Most calls are too many."""
    names = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")
    if operation == "BatchExecuteStatement" and chance.random() < 0.3:
        return fail_statements("ThrottlingError", len(body["Statements"]))
    return refuse(chance.choice(names)) if chance.random() < 0.7 else None


def failing(chance: random.Random, _operation: str, _body: Any) -> Any:
    """Most calls end in a failure of the server; of some of them everything was done."""
    outcome = chance.random()
    if outcome < 0.3:
        return refuse("InternalServerError", status=500)
    if outcome < 0.4:
        return refuse("ServiceUnavailable", status=503)
    return lose_the_answer if outcome < 0.7 else None


def partial(chance: random.Random, operation: str, body: Any) -> Any:
    """Of most batches a part is done, and the answer says so."""
    if chance.random() < 0.3:
        return None
    if operation == "BatchExecuteStatement":
        count = chance.randint(1, len(body["Statements"]))
        return fail_statements(chance.choice(("InternalServerError", "ProvisionedThroughputExceeded")), count)
    if operation == "BatchGetItem":
        ((_, asked),) = body["RequestItems"].items()
        return leave_keys(chance.randint(1, len(asked["Keys"])))
    return None

"""The check: read every feature of every key over HTTP, as a client would, and compare it with the oracle.

Answers are collected first and compared afterwards, each at its own instant: so the oracle's work is not part of the
measured time, and the instants may differ.
"""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from demo.oracle import ENTITIES, Key, Oracle, Value, same

KEYS_PER_REQUEST = 100
CONCURRENCY = 2
REQUEST_DEADLINE_MS = 10_000
DESCRIPTIONS_MAX = 20
NO_HEADERS: Mapping[str, str] = {}


@dataclass(slots=True)
class CheckResult:
    """What the check found.

    Attributes:
        values_checked: (key, feature) pairs that were compared.
        values_wrong: Those with another value or status than the oracle's, or none at all.
        first_wrong: Descriptions of the first 20 of them.
        read_ms: Time of each request, which reads up to 100 keys with all features of their entity, in milliseconds.
    """

    values_checked: int = 0
    values_wrong: int = 0
    first_wrong: list[str] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)

    def wrong(self, description: str, *, values: int = 1) -> None:
        """Count wrong values."""
        self.values_wrong += values
        if len(self.first_wrong) < DESCRIPTIONS_MAX:
            self.first_wrong.append(description)


@dataclass(frozen=True, slots=True)
class _Read:
    """One request's keys and features, and the body of the answer or the reason why there is none."""

    entity: str
    keys: Sequence[Key]
    features: Sequence[str]
    body: bytes
    failure: str


async def check_served(
    base_url: str,
    oracle: Oracle,
    *,
    served: Collection[str] | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
    concurrency: int = CONCURRENCY,
    keys_per_request: int = KEYS_PER_REQUEST,
) -> CheckResult:
    """Compare every (key, feature) that the log touches with what ``POST /get-online-features`` says.

    Args:
        base_url: Of the feature server, as ``http://127.0.0.1:6566``.
        oracle: Knows the same events that the platform has seen.
        served: Compare those features alone, by ``group:feature``; None for all that the oracle knows.
        headers: Sent with each request, such as an API key.
        concurrency: How many requests are under way at once.
        keys_per_request: How many keys of one entity a request asks for.

    Returns:
        The result. A request that fails is no error: its values are wrong, and the description says why.
    """
    result = CheckResult()
    features = {
        entity: [name for name in oracle.empty(entity) if served is None or name in served] for entity in ENTITIES
    }
    batches = [
        (entity, keys[start : start + keys_per_request])
        for entity in ENTITIES
        if features[entity]
        for keys in [oracle.keys(entity)]
        for start in range(0, len(keys), keys_per_request)
    ]
    waiting = iter(batches)
    reads: list[_Read] = []

    async def read_next(session: aiohttp.ClientSession) -> None:
        for entity, keys in waiting:
            started = time.perf_counter()
            reads.append(await _read(session, base_url, entity, keys, features[entity]))
            result.read_ms.append((time.perf_counter() - started) * 1000)

    deadline = aiohttp.ClientTimeout(total=REQUEST_DEADLINE_MS / 1000)
    async with aiohttp.ClientSession(timeout=deadline, headers=headers) as session:
        await asyncio.gather(*(read_next(session) for _ in range(concurrency)))
    for read in reads:
        _compare(read, oracle, result)
        # The screen of the demo lives in this loop too.
        await asyncio.sleep(0)
    return result


async def _read(
    session: aiohttp.ClientSession, base_url: str, entity: str, keys: Sequence[Key], features: Sequence[str]
) -> _Read:
    request = {
        "entities": {column: [key[place] for key in keys] for place, column in enumerate(ENTITIES[entity])},
        "features": features,
        "full_feature_names": True,
    }
    try:
        async with session.post(
            f"{base_url}/get-online-features",
            data=orjson.dumps(request),
            headers={"Content-Type": "application/json"},
        ) as response:
            body = await response.read()
            failure = "" if response.status == 200 else f"status {response.status}: {body[:300]!r}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return _Read(entity, keys, features, body=b"", failure=f"{type(error).__name__}: {error}")
    return _Read(entity, keys, features, body=body, failure=failure)


def _compare(read: _Read, oracle: Oracle, result: CheckResult) -> None:
    empty = oracle.empty(read.entity)
    values = len(read.keys) * len(read.features)
    result.values_checked += values
    if read.failure:
        result.wrong(f"{read.entity}, {len(read.keys)} keys from {read.keys[0]}: {read.failure}", values=values)
        return
    try:
        instant_ms, rows = _parse(read)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        result.wrong(f"{read.entity}: not the answer to the request: {error!r}", values=values)
        return
    for key, row in zip(read.keys, rows, strict=True):
        expected = oracle.expected(read.entity, key, instant_ms)
        for name, problem in _problems(read.features, expected, row, empty):
            result.wrong(f"{name} of {read.entity} {key} at {instant_ms}: {problem}")


def _parse(read: _Read) -> tuple[int, list[dict[str, tuple[Any, str]]]]:
    """Return the answer's instant, and per key the (value, status) by ``group:feature``.

    Raises:
        KeyError, TypeError, ValueError, IndexError: The answer has another shape, or its keys are others.
    """
    answer = orjson.loads(read.body)
    columns = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    for place, column in enumerate(ENTITIES[read.entity]):
        if columns.pop(column)["values"] != [key[place] for key in read.keys]:
            raise ValueError(f"column {column!r} has not the keys that were asked for")
    pairs = {
        name.replace("__", ":", 1): list(zip(column["values"], column["statuses"], strict=True))
        for name, column in columns.items()
    }
    rows = [{name: column[index] for name, column in pairs.items()} for index in range(len(read.keys))]
    return int(answer["metadata"]["instant_ms"]), rows


def _problems(
    features: Sequence[str],
    expected: Mapping[str, Value],
    row: Mapping[str, tuple[Any, str]],
    empty: Mapping[str, Value],
) -> Iterator[tuple[str, str]]:
    """Yield (feature, what is wrong) for each feature of one key that is not as it must be."""
    for name in features:
        value = expected[name]
        if name not in row:
            yield name, "not in the answer"
            continue
        served, status = row[name]
        if not same(value, served):
            yield name, f"expected {value!r}, served {served!r} ({status})"
        elif status == "NOT_FOUND":
            group = name.split(":")[0] + ":"
            if any(expected[other] != empty[other] for other in expected if other.startswith(group)):
                yield name, "NOT_FOUND, but its group has events"
        elif status != ("NULL_VALUE" if value is None else "PRESENT"):
            yield name, f"value {served!r} with status {status}"

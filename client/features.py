"""Reading features: from a service's or features' names and keys to columns, rows or a data frame.

    with FeatureClient("http://127.0.0.1:6566", deadline_ms=50) as client:
        features = client.read("home_feed", user_id=[24720, 7])
        features.rows()[0]["ctr_7d"]

Connections are kept and used again. Nothing is tried twice: who waits for 50 ms has no time for that, and knows what to
do without.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

_SLACK_MS = 200
_DEADLINE_MS = 1_000
_PATH = "/get-online-features"


class ReadError(Exception):
    """There are no features: the request is wrong, the worker is busy, or nobody answers.

    Attributes:
        status: Of the answer in HTTP, or None without one.
    """

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Features:
    """An answer; ``columns`` makes a data frame as it is, of polars or of pandas.

    Attributes:
        columns: By name, one value per key: first the keys themselves, then the features as they were asked for.
        statuses: Likewise: ``PRESENT``, ``NULL_VALUE``, ``NOT_FOUND`` (the default is served),
            ``OUTSIDE_MAX_AGE``, or ``INVALID``: it could not be had just now.
        event_times: Likewise: when the newest event was, RFC 3339.
        instant_ms: The instant that all values hold for.
        as_of_ms: Every event up to this one is in them; 0 where something could not be had, or a key's partition has
            had no event yet.
        unread: Groups of which something could not be had; asking again may help.
        defaults: Those of them of which defaults are served instead of nulls, as ``INVALID`` too.
        old: Groups of which older values are served than usual, because a store fails.
    """

    columns: Mapping[str, Sequence[Any]]
    statuses: Mapping[str, Sequence[str]]
    event_times: Mapping[str, Sequence[str]]
    instant_ms: int
    as_of_ms: int
    unread: Sequence[str] = ()
    defaults: Sequence[str] = ()
    old: Sequence[str] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per key."""
        return [dict(zip(self.columns, values, strict=True)) for values in zip(*self.columns.values(), strict=True)]


class FeatureClient:
    """Reads features of one worker, or of several behind one address."""

    def __init__(self, url: str, *, key: str | None = None, deadline_ms: int = _DEADLINE_MS) -> None:
        """Connect at the first read.

        Args:
            url: Of a serving worker, ``http://host:port``.
            key: API key of scope ``read``, if the worker has keys.
            deadline_ms: How long a read may take; the worker is told and does not work longer for it.
        """
        self._deadline_ms = deadline_ms
        self._http = httpx.Client(**_settings(url, key, deadline_ms))

    def read(self, names: str | Sequence[str], /, **keys: Sequence[int | str | float | bool]) -> Features:
        """Return features.

        Args:
            names: A service's name, or ``group:feature`` references.
            keys: Columns of key values, and of what else on-demand features take, all of one length.

        Raises:
            ReadError: There is no answer, or it is an error.
        """
        ends_at = time.monotonic() + (self._deadline_ms + _SLACK_MS) / 1000
        try:
            # In pieces: httpx has a limit for each wait, and none for all of them.
            with self._http.stream("POST", _PATH, content=_body(names, keys)) as answer:
                pieces = []
                for piece in answer.iter_bytes():
                    pieces.append(piece)
                    if time.monotonic() > ends_at:
                        raise httpx.ReadTimeout("too late")
                return _parse(answer.status_code, b"".join(pieces))
        except httpx.HTTPError as error:
            raise _no_answer(error, self._deadline_ms) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class AsyncFeatureClient:
    """The same for programs with an event loop."""

    def __init__(self, url: str, *, key: str | None = None, deadline_ms: int = _DEADLINE_MS) -> None:
        """Connect at the first read; the arguments are those of ``FeatureClient``."""
        self._deadline_ms = deadline_ms
        self._http = httpx.AsyncClient(**_settings(url, key, deadline_ms))

    async def read(self, names: str | Sequence[str], /, **keys: Sequence[int | str | float | bool]) -> Features:
        """Return features, as ``FeatureClient.read`` does.

        Raises:
            ReadError: There is no answer, or it is an error.
        """
        try:
            async with asyncio.timeout((self._deadline_ms + _SLACK_MS) / 1000):
                answer = await self._http.post(_PATH, content=_body(names, keys))
        except (httpx.HTTPError, TimeoutError) as error:
            raise _no_answer(error, self._deadline_ms) from error
        return _parse(answer.status_code, answer.content)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


def _settings(url: str, key: str | None, deadline_ms: int) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Freshet-Deadline-Ms": str(deadline_ms)}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    # The worker's own word that the time is over is better than none.
    return {"base_url": url, "headers": headers, "timeout": (deadline_ms + _SLACK_MS) / 1000}


def _body(names: str | Sequence[str], keys: Mapping[str, Sequence[Any]]) -> bytes:
    for name, values in keys.items():
        # A text is a sequence too, of letters.
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise TypeError(f"{name}: give a list with one value per key, not {values!r}")
    wanted: dict[str, Any] = {"feature_service": names} if isinstance(names, str) else {"features": list(names)}
    return json.dumps(wanted | {"entities": {name: list(values) for name, values in keys.items()}}).encode()


def _parse(status: int, body: bytes) -> Features:
    if status != httpx.codes.OK:
        raise ReadError(_detail(body), status)
    try:
        told = json.loads(body)
        metadata, results = told["metadata"], told["results"]
        by_name = dict(zip(metadata["feature_names"], results, strict=True))
        return Features(
            columns={name: result["values"] for name, result in by_name.items()},
            statuses={name: result["statuses"] for name, result in by_name.items()},
            event_times={name: result["event_timestamps"] for name, result in by_name.items()},
            instant_ms=metadata["instant_ms"],
            as_of_ms=metadata["min_as_of_ms"],
            unread=metadata.get("unread", ()),
            defaults=metadata.get("defaults", ()),
            old=metadata.get("old", ()),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ReadError(f"this is no answer of a worker: {body[:200]!r}", status) from error


def _detail(body: bytes) -> str:
    """Return what an answer says is wrong: an object with ``detail``, or Feast's string of JSON."""
    try:
        told = json.loads(body)
        told = json.loads(told) if isinstance(told, str) else told
        return str(told.get("detail") or told.get("message"))
    except (ValueError, AttributeError):
        return body[:500].decode(errors="replace")


def _no_answer(error: Exception, deadline_ms: int) -> ReadError:
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return ReadError(f"no answer within {deadline_ms} ms")
    return ReadError(f"no answer: {error}")

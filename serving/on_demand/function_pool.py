"""Where functions of on-demand features and sources run: in processes of their own, which may hang, fail or end.

A function that is too late ends with its process, and another one takes its place; so does one that takes more memory
than it may. It costs the answers that wait for it its own feature (``INVALID``), and them no more than its deadline.
"""

import asyncio
import importlib
import logging
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError as CallCancelledError
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool
from typing_extensions import override

from core.errors import ConfigurationError
from core.metrics import Metrics
from core.on_demand import OnDemandFeature, OnDemandSource
from core.values import TEXT_BYTES_MAX
from serving.on_demand.functions import ABSENT, FAILED, Computed, Functions, invalid, judge, judge_fetched
from serving.statuses import INVALID

log = logging.getLogger(__name__)

MEMORY_BYTES_MAX = 1 << 30
_CALLS_MAX = 256
_START_S = 30.0
_END_S = 5.0
_CANCEL_S = 0.2
"""A fetch that is too late is cancelled, which keeps its connections; what does not end then ends with its process."""

T = TypeVar("T")


class _FailedError(Exception):
    """A call has brought nothing."""


class FunctionPool(Functions):
    """Runs functions in a few processes."""

    def __init__(
        self, registry: str, metrics: Metrics, *, processes: int, memory_bytes_max: int = MEMORY_BYTES_MAX
    ) -> None:
        """Prepare the processes; they start with the first call.

        Args:
            registry: Where the definitions are, ``package.module:NAME``.
            metrics: Told of each computation.
            processes: How many; so many functions may hang before others wait.
            memory_bytes_max: Address space of each.
        """
        self._metrics = metrics
        self._processes = processes
        # Definitions may stand where the worker was started; only its own imports look there.
        self._begin = (registry, str(Path.cwd()), memory_bytes_max)
        self._waiting = 0
        # A call that waits, waits here: one that waits at the processes can be taken back only with a process.
        self._slots = asyncio.Semaphore(processes)
        self._pool = self._new_pool()

    async def warm_up(self) -> None:
        """Let the processes load the definitions: the first answers would be too late otherwise.

        Raises:
            ConfigurationError: One of them does not start.
        """
        starts = [asyncio.wrap_future(self._pool.schedule(_nothing, timeout=_START_S)) for _ in range(self._processes)]
        for failure in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise ConfigurationError(
                    f"a process for on-demand features does not start ({failure}); what it says is above"
                ) from failure

    @override
    async def compute(
        self, group: str, feature: OnDemandFeature, columns: Mapping[str, Sequence[Any]], *, deadline_ms: int
    ) -> Computed:
        started, rows = time.monotonic(), len(next(iter(columns.values())))
        name, told = f"{group}:{feature.name}", None
        try:
            values, told = await self._call(_compute, group, feature.name, dict(columns), deadline_ms=deadline_ms)
            computed = judge(feature, values)
            told = told or f"it returns no {feature.returns.value}"
        except _FailedError as error:
            computed, told = invalid(rows), str(error)
        self._tell(name, computed.statuses, told, time.monotonic() - started)
        return computed

    @override
    async def fetch(
        self, source: OnDemandSource, keys: Mapping[str, Sequence[Any]], *, deadline_ms: int
    ) -> dict[str, Computed]:
        started, rows = time.monotonic(), len(next(iter(keys.values())))
        try:
            columns, told = await self._call(
                _fetch, source.name, dict(keys), deadline_ms, deadline_ms=deadline_ms, grace_s=_CANCEL_S
            )
            fetched = judge_fetched(source, columns)
            told = told or "it returns something else than it declares"
        except _FailedError as error:
            fetched, told = dict.fromkeys(source.returns, invalid(rows)), str(error)
        for name, computed in fetched.items():
            self._tell(f"{source.name}:{name}", computed.statuses, told, time.monotonic() - started)
        return fetched

    async def _call(self, function: Callable[..., T], *args: Any, deadline_ms: int, grace_s: float = 0.0) -> T:
        """Let a process call a function.

        Args:
            function: Of this module.
            args: Its arguments.
            deadline_ms: How long it is waited for.
            grace_s: How much longer it may take until it ends with its process.

        Raises:
            _FailedError: It has brought nothing; why.
        """
        if self._waiting >= _CALLS_MAX:
            raise _FailedError("too many calls wait")
        deadline_s = deadline_ms / 1000
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline_s):
                await self._slots.acquire()
                # What has begun ends by itself, or with its process, whether anybody waits for it or not.
                return await asyncio.shield(self._schedule(function, args, deadline_s + grace_s))
        except (TimeoutError, CallCancelledError):
            raise _FailedError(f"no value within {deadline_ms} ms") from None
        except ProcessExpired as error:
            raise _FailedError(f"its process has ended with {error.exitcode}") from error
        except Exception as error:  # whatever the way there and back makes of it
            raise _FailedError(type(error).__name__) from error
        finally:
            self._waiting -= 1

    def _schedule(self, function: Callable[..., T], args: Sequence[Any], kill_s: float) -> "asyncio.Future[T]":
        try:
            call = asyncio.wrap_future(self._pool.schedule(function, args=args, timeout=kill_s))
        except RuntimeError:
            self._slots.release()
            # A process that ends with nothing to do, as by want of memory, ends pebble's whole pool.
            log.exception("the processes for on-demand features have ended; others start")
            self._pool = self._new_pool()
            raise
        call.add_done_callback(self._ended)
        return call

    def _ended(self, call: "asyncio.Future[Any]") -> None:
        self._slots.release()
        if not call.cancelled():
            # If nobody waits any more, nobody asks.
            call.exception()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._processes,
            initializer=_begin,
            initargs=self._begin,
            # No copy of this process, with its loop and its connections.
            context=get_context("spawn"),
        )

    def _tell(self, name: str, statuses: Sequence[str], told: str | None, seconds: float) -> None:
        failed = statuses.count(INVALID)
        self._metrics.on_demand(name, rows=len(statuses), invalid=failed, seconds=seconds)
        if failed:
            log.warning("on-demand feature failed", extra={"feature": name, "rows": failed, "why": told})

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join(timeout=_END_S)


# -- in the processes

_features: dict[tuple[str, str], OnDemandFeature] = {}
_sources: dict[str, OnDemandSource] = {}
_runner = asyncio.Runner()
"""One loop for all fetches of a process, so that their clients may keep connections."""


def _begin(registry: str, directory: str, memory_bytes_max: int) -> None:
    """Load the definitions, then take no more memory than may be."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    module, _, name = registry.partition(":")
    loaded = getattr(importlib.import_module(module), name)
    for group in loaded.on_demand:
        _features.update({(group.name, feature.name): feature for feature in group.features})
    _sources.update({source.name: source for source in loaded.on_demand_sources})
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))


def _nothing() -> None: ...


def _compute(group: str, feature: str, columns: Mapping[str, Sequence[Any]]) -> tuple[list[Any], str | None]:
    """Return what a function makes of each row, and what it has raised first."""
    function = _features[group, feature].function
    values: list[Any] = []
    first: str | None = None
    for row in zip(*columns.values(), strict=True):
        try:
            value = function(**dict(zip(columns, row, strict=True)))
        except BaseException as error:  # noqa: BLE001  # a user's function may raise anything, as sys.exit() does
            first = first or _where(error)
            value = FAILED
        values.append(_plain(value))
    return values, first


def _fetch(name: str, keys: Mapping[str, Sequence[Any]], deadline_ms: int) -> tuple[dict[str, list[Any]], str | None]:
    """Return what a source fetches, by value a column, and what it has raised."""
    source, rows = _sources[name], len(next(iter(keys.values())))
    try:
        items = _runner.run(asyncio.wait_for(_ask(source, keys), deadline_ms / 1000))
        if not isinstance(items, list | tuple) or len(items) != rows:
            told = f"{len(items)} items" if isinstance(items, list | tuple) else f"a {type(items).__name__}"
            return {value: [FAILED] * rows for value in source.returns}, f"it returns {told}, no list of {rows} items"
        columns = {value: [_value_of(item, value) for item in items] for value in source.returns}
    except BaseException as error:  # noqa: BLE001  # as in _compute
        return {value: [FAILED] * rows for value in source.returns}, _where(error)
    return columns, None


async def _ask(source: OnDemandSource, keys: Mapping[str, Sequence[Any]]) -> Any:
    try:
        return await source.fetch(**keys)
    except (SystemExit, KeyboardInterrupt) as error:
        # These would end the loop, and all later fetches with it.
        raise RuntimeError("it wants to end the process") from error


def _where(error: BaseException) -> str:
    """Return an error's class and place: its text may quote what must not be stored, and logs are."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in line {frames[-1].lineno} of {frames[-1].filename}"


def _value_of(item: Mapping[str, Any] | None, name: str) -> Any:
    return ABSENT if item is None else _plain(item.get(name))


def _plain(value: Any) -> Any:
    """Return a value, if it may be carried back: bytes of a foreign class would be unpacked in the worker."""
    if type(value) is str and len(value) > TEXT_BYTES_MAX:
        return FAILED
    return value if value is None or type(value) in (int, float, str, bool) else FAILED

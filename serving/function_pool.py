"""Where functions of on-demand features run: in processes of their own, which may hang, fail or end.

A function that is too late ends with its process, and another one takes its place; so does one that takes more memory
than it may. It costs the answers that wait for it its own feature (``INVALID``), and them no more than its deadline.
"""

import asyncio
import importlib
import logging
import resource
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError as CallCancelledError
from multiprocessing import get_context
from typing import Any

from pebble import ProcessExpired, ProcessPool
from typing_extensions import override

from core.metrics import Metrics
from core.on_demand import OnDemandFeature
from serving.on_demand import FAILED, INVALID, Computed, Functions, invalid, judge

log = logging.getLogger(__name__)

MEMORY_BYTES_MAX = 1 << 30
_CALLS_MAX = 256
_START_S = 30.0
_END_S = 5.0


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
        self._calls = 0
        self._pool = ProcessPool(
            max_workers=processes,
            initializer=_begin,
            initargs=(registry, memory_bytes_max),
            # No copy of this process, with its loop and its connections.
            context=get_context("spawn"),
        )

    async def warm_up(self) -> None:
        """Let the processes load the definitions: the first answers would be too late otherwise."""
        starts = [asyncio.wrap_future(self._pool.schedule(_nothing, timeout=_START_S)) for _ in range(self._processes)]
        for failure in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(failure, BaseException):
                log.error("a process for on-demand features does not start: %s", failure)

    @override
    async def compute(
        self, group: str, feature: OnDemandFeature, columns: Mapping[str, Sequence[Any]], *, deadline_ms: int
    ) -> Computed:
        started = time.monotonic()
        computed = await self._compute(group, feature, columns, deadline_ms=deadline_ms)
        self._metrics.on_demand(
            f"{group}:{feature.name}",
            rows=len(computed.values),
            invalid=computed.statuses.count(INVALID),
            seconds=time.monotonic() - started,
        )
        return computed

    async def _compute(
        self, group: str, feature: OnDemandFeature, columns: Mapping[str, Sequence[Any]], *, deadline_ms: int
    ) -> Computed:
        rows = len(next(iter(columns.values())))
        if self._calls >= _CALLS_MAX:
            return _invalid(feature, rows, "too many calls wait")
        self._calls += 1
        deadline_s = deadline_ms / 1000
        call = self._pool.schedule(_call, args=(group, feature.name, dict(columns)), timeout=deadline_s)
        try:
            async with asyncio.timeout(deadline_s):
                values, errors = await asyncio.wrap_future(call)
        except (TimeoutError, CallCancelledError):
            return _invalid(feature, rows, f"no value within {deadline_ms} ms")
        except ProcessExpired as error:
            return _invalid(feature, rows, f"its process has ended with {error.exitcode}")
        except Exception as error:  # noqa: BLE001  # whatever the way there and back makes of it
            return _invalid(feature, rows, f"{type(error).__name__}: {error}")
        finally:
            self._calls -= 1
        if errors:
            _tell(feature, len(errors), errors[0])
        return judge(feature, values)

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join(timeout=_END_S)


def _invalid(feature: OnDemandFeature, rows: int, why: str) -> Computed:
    _tell(feature, rows, why)
    return invalid(rows)


def _tell(feature: OnDemandFeature, rows: int, why: str) -> None:
    log.warning("on-demand feature failed", extra={"feature": feature.name, "rows": rows, "why": why})


# -- in the processes

_features: dict[tuple[str, str], OnDemandFeature] = {}


def _begin(registry: str, memory_bytes_max: int) -> None:
    """Load the definitions, then take no more memory than may be."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    module, _, name = registry.partition(":")
    for group in getattr(importlib.import_module(module), name).on_demand:
        _features.update({(group.name, feature.name): feature for feature in group.features})
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))


def _nothing() -> None: ...


def _call(group: str, feature: str, columns: Mapping[str, Sequence[Any]]) -> tuple[list[Any], list[str]]:
    """Return what a function makes of each row, and what it has raised."""
    function = _features[group, feature].function
    values: list[Any] = []
    errors: list[str] = []
    for row in zip(*columns.values(), strict=True):
        try:
            value = function(**dict(zip(columns, row, strict=True)))
        except Exception as error:  # noqa: BLE001  # a user's function may raise anything
            errors.append(f"{type(error).__name__}: {error}"[:500])
            value = FAILED
        # Nothing else may be carried back: bytes of a foreign class would be unpacked in the worker.
        values.append(value if value is None or type(value) in (int, float, str, bool) else FAILED)
    return values, errors

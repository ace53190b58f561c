"""A worker that can be made to fail: ``faust -A tests.chaos.worker worker``.

It is the worker that users run. The adapters that ``app.wiring`` names are taken by ones that die at failpoints and
otherwise do what those do, and the clock by one that can be set wrong.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents import dispatch, publish, transport
from app import endpoints, wiring
from core.ports import Store
from tables import changelog, restore
from tests.chaos.failpoints import DIRECTORY, Failpoints, SkewedClock

_DIRECTORY = Path(os.environ[DIRECTORY])
POINTS = Failpoints(_DIRECTORY)


class Dispatcher(dispatch.Dispatcher):
    """Dies when a run was sent and is not acknowledged yet."""

    async def take(self, message: Any) -> None:
        await super().take(message)
        POINTS.reach("after_send")


class Publisher(publish.Publisher):
    """Dies after a run was applied to its table."""

    def applied(self, *args: Any, **kwargs: Any) -> None:
        super().applied(*args, **kwargs)
        POINTS.reach("after_put")


class ChangelogWriter(changelog.ChangelogWriter):
    """Dies after the changelog has acknowledged rows."""

    async def write(self, rows: Mapping[Any, Any]) -> None:
        await super().write(rows)
        POINTS.reach("after_changelog_ack")


class ChangelogReader(restore.ChangelogReader):
    """Dies when tables are restored and nothing is owned yet."""

    async def restore(self, tables: Any) -> Any:
        ends = await super().restore(tables)
        POINTS.reach("in_recovery")
        return ends


class Consumer(transport.Consumer):
    """Dies before a commit is sent, or after it was taken."""

    async def _commit(self, offsets: Any) -> bool:
        POINTS.reach("before_commit")
        done = await super()._commit(offsets)
        if done:
            POINTS.reach("after_commit")
        return done


def _rows_of_features(rows: Any) -> bool:
    """Tell rows from what is kept of partitions as a whole."""
    return any(not row.key.sk.startswith("#") for row in rows)


def open_record(*args: Any) -> Store:
    """Open a record that dies after it has taken rows."""
    store = endpoints.open_record(*args)
    write = store.write

    async def write_and_die(rows: Any, *, deadline_ms: int) -> int:
        taken = await write(rows, deadline_ms=deadline_ms)
        if _rows_of_features(rows):
            POINTS.reach("after_record_write")
        return taken

    store.write = write_and_die  # type: ignore[method-assign]  # this one store alone
    return store


def open_cache(*args: Any, **kwargs: Any) -> Store | None:
    """Open a cache that dies before it is given rows, or after it has taken them."""
    store = endpoints.open_cache(*args, **kwargs)
    if store is not None:
        write = store.write

        async def die_and_write(rows: Any, *, deadline_ms: int) -> int:
            is_of_features = _rows_of_features(rows)
            if is_of_features:
                POINTS.reach("before_redis")
            taken = await write(rows, deadline_ms=deadline_ms)
            if is_of_features:
                POINTS.reach("after_redis")
            return taken

        store.write = die_and_write  # type: ignore[method-assign]  # this one store alone
    return store


def _tell_tasks(*_: Any) -> None:
    """Say what every task waits for: the rig asks a worker that does not end."""
    for task in asyncio.all_tasks(asyncio.get_event_loop_policy().get_event_loop()):
        task.print_stack(file=sys.__stderr__)


def _take_place(owner: Any, name: str, value: Any) -> None:
    """Set what is there: a failpoint under a name that nobody uses any more would never be reached."""
    getattr(owner, name)
    setattr(owner, name, value)


signal.signal(signal.SIGUSR1, _tell_tasks)
for adapter in (Dispatcher, Publisher, ChangelogWriter, ChangelogReader, open_record, open_cache):
    _take_place(wiring, adapter.__name__, adapter)
_take_place(wiring, "SystemClock", lambda: SkewedClock(_DIRECTORY))
_take_place(transport.Transport, "Consumer", Consumer)

from app.worker import app  # noqa: E402, F401  # it builds the worker when it is imported

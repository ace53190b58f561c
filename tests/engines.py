"""The engines that tables are tested on: what holds for one must hold for each.

Whoever makes tables asks for the present engine. The one on disk is shared by all tests of a process, and lets every
row cool down at once that is not dirty: few rows are enough to meet it.
"""

import getpass
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tables.disk import TablesDisk
from tables.engine import MEMORY, Engine

_present: list[Engine] = [MEMORY]


def present_engine() -> Engine:
    return _present[-1]


async def open_present_engine() -> Engine:
    return present_engine()


@contextmanager
def using(engine: Engine) -> Iterator[None]:
    _present.append(engine)
    try:
        yield
    finally:
        _present.pop()


@cache
def disk_engine() -> Engine:
    # The next process that takes the part of a dead one removes what was left of it.
    root = Path(tempfile.gettempdir()) / f"freshet-tests-{getpass.getuser()}"
    return TablesDisk(root, cache_bytes=8 << 20, live_rows_max=0).open()

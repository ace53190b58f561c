"""The worker: ``faust -A app.worker worker``. The one module that builds something when it is imported."""

import asyncio
import gc
import sys

import uvloop

from app.heaps import share_one_heap
from app.settings import load_settings
from app.wiring import open_platform
from core.errors import FreshetError

share_one_heap()
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
# The tables are a million small objects that live long: looking through them all stops the worker for 0.4 s and finds
# nothing. Garbage of requests and runs is young and found where it is.
gc.set_threshold(50_000, 50, 1_000)
# Consumer and SQLite work in threads of their own; at the default 5 ms each of their steps waits for a busy loop.
sys.setswitchinterval(0.0005)

try:
    platform = open_platform(load_settings())
except FreshetError as error:
    # Something that a user can mend is told in words, not in a trace through Faust.
    raise SystemExit(f"freshet: {error}") from None
app = platform.app

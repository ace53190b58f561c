"""The worker: ``faust -A app.worker worker``. The one module that builds something when it is imported."""

import asyncio

import uvloop

from app.settings import Settings
from app.wiring import open_platform

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

platform = open_platform(Settings())
app = platform.app

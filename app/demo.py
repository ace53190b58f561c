"""The demo from nothing to figures: embedded services, one worker, a replay, and a screen or a JSON object."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.endpoints import embedded_topics
from app.settings import Settings
from app.worker_process import WorkerProcess, start_worker
from core.errors import ConfigurationError
from demo.session import Report, Session
from features import REGISTRY
from services.embedded import EmbeddedServices, start_embedded


@asynccontextmanager
async def open_demo(
    settings: Settings, *, any_port: bool
) -> AsyncIterator[tuple[Session, WorkerProcess, EmbeddedServices]]:
    """Start everything that the demo needs, and stop it at the end, whatever happens.

    Args:
        settings: Of the worker; the demo's own services replace broker, cache and record.
        any_port: Whether to serve at a free port instead of the settings' one.

    Raises:
        ConfigurationError: The port is taken, or the worker did not start.
        BrokerError: The embedded services did not start.
    """
    port = _free_port() if any_port else _require_free(settings.web_port)
    services = await asyncio.to_thread(start_embedded, embedded_topics(REGISTRY))
    worker: WorkerProcess | None = None
    try:
        environment = {
            "FRESHET_BROKER": services.broker,
            "FRESHET_REDIS": services.redis_url or "none",
            "FRESHET_RECORD": f"sqlite:///{services.record_path}",
            "FRESHET_REGISTRY": "features:REGISTRY",
            "FRESHET_ROLE": "all",
            "FRESHET_APPLY": "true",
        }
        worker = start_worker(environment, web_port=port, log=services.directory / "worker.log")
        await asyncio.to_thread(worker.wait_ready)
        yield Session(worker.base_url, services.broker), worker, services
    finally:
        if worker is not None:
            worker.stop()
        services.stop()


async def run_demo(settings: Settings) -> Report:
    """Run the demo once to its end, without a screen."""
    async with open_demo(settings, any_port=True) as (session, worker, _):
        run = asyncio.create_task(session.run())
        while not run.done():
            await asyncio.wait([run], timeout=0.5)
            if not worker.is_alive:
                session.stop()
                run.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await run
                raise ConfigurationError(f"the worker ended in the middle of the demo:\n{worker.log_tail()}")
        return await run


def _require_free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} is taken ({error.strerror}): set FRESHET_WEB_PORT to another"
            ) from error
    return port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

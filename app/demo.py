"""The demo from nothing to figures: embedded services, one worker, a replay, and a screen or a JSON object."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
from rich.console import Console

from app.endpoints import embedded_topics
from app.kafka.access import KafkaAccess
from app.settings import Settings
from app.worker_process import WorkerProcess, start_worker
from core.errors import ConfigurationError, FreshetError
from demo.figures import read_worker
from demo.narration import Narration
from demo.screen import demo_screen
from demo.session import Report, Session
from services.embedded import EmbeddedServices, start_embedded
from services.server_process import free_ports

REGISTRY = "features:REGISTRY"
STARTING = "Starting an in-memory broker, Redis, SQLite and one worker …"


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
    port = free_ports(1)[0] if any_port else _require_free(settings.web_port)
    registry = settings.model_copy(update={"registry": REGISTRY}).load_registry()
    services = await asyncio.to_thread(start_embedded, embedded_topics(registry))
    worker: WorkerProcess | None = None
    try:
        environment = {
            # Its broker asks for no certificate and no password, whatever the one of the settings does.
            **{f"FRESHET_{name.upper()}": "" for name in Settings.model_fields if name.startswith("broker_")},
            "FRESHET_BROKER": services.broker,
            "FRESHET_REDIS": services.redis_url or "none",
            "FRESHET_RECORD": f"sqlite:///{services.record_path}",
            "FRESHET_REGISTRY": REGISTRY,
            "FRESHET_ROLE": "all",
            "FRESHET_APPLY": "true",
            # It asks its own worker without a key, which therefore listens on loopback alone.
            "FRESHET_API_KEYS": "",
            "FRESHET_WEB_HOST": "127.0.0.1",
        }
        worker = start_worker(environment, web_port=port, log=services.directory / "worker.log")
        await asyncio.to_thread(worker.wait_ready)
        kafka = KafkaAccess((services.broker,)).for_librdkafka()
        yield (
            Session([worker.base_url], kafka, registry=registry, read=partial(read_worker, worker.base_url)),
            worker,
            services,
        )
    finally:
        if worker is not None:
            worker.stop()
        services.stop()


async def run_demo(settings: Settings, *, say: Callable[[str], None], picture: Path | None = None) -> Report:
    """Run the demo once to its end, told in lines; its last screen may be saved as an SVG."""
    say(STARTING)
    narration = Narration(say)
    async with (
        open_demo(settings, any_port=True) as (session, worker, services),
        running(session, worker, services) as run,
    ):
        while not run.done():
            await asyncio.wait([run], timeout=0.5)
            require_alive(worker, services)
            narration.look(session.progress)
        if picture is not None:
            screen = Console(record=True, width=110, file=io.StringIO())
            screen.print(demo_screen(session.progress))
            screen.save_svg(str(picture), title="freshet demo")
        return run.result()


@asynccontextmanager
async def running(
    session: Session, worker: WorkerProcess, services: EmbeddedServices
) -> AsyncIterator["asyncio.Task[Report]"]:
    """Run a session in the background; at the end it is stopped, before the services that it uses are.

    Raises:
        ConfigurationError: The worker ended meanwhile; without it nothing that failed besides is worth telling.
        BrokerError: The embedded services did.
    """
    run = asyncio.create_task(session.run())
    try:
        yield run
    except (OSError, aiohttp.ClientError, ExceptionGroup, FreshetError):
        # A request was cut off; the worker's end is seen a moment later than that of its connections.
        await asyncio.to_thread(worker.wait_end, deadline_s=1.0)
        require_alive(worker, services)
        raise
    finally:
        session.stop()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


def require_alive(worker: WorkerProcess, services: EmbeddedServices) -> None:
    """Refuse to go on without the worker or the services.

    Raises:
        BrokerError: The services have ended; then a worker that ended too did so for that reason.
        ConfigurationError: The worker has ended; the message has the end of its log.
    """
    services.require_alive()
    if not worker.is_alive:
        raise ConfigurationError(f"the worker ended in the middle of the demo:\n{worker.log_tail()}")


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

"""The Faust application: Faust's agents, groups, web server and command line, with Freshet's transport."""

import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, cast

import faust
from aiohttp import web
from faust.app.base import BootStrategy
from faust.web.drivers import aiohttp as driver

from agents.fence import Fence
from agents.guard import die
from agents.owned_partitions import Ownership
from agents.transport import Transport
from app.front_site import FrontSite
from app.kafka.access import KafkaAccess
from app.logs import logging_config
from app.settings import Settings, refuse_open
from core.errors import ConfigurationError, FreshetError
from serving.answers.requests import BODY_BYTES_MAX
from serving.web.front_door import FrontDoor

log = logging.getLogger(__name__)

REBALANCE_TIMEOUT_S = 30.0
_REQUEST_TIMEOUT_S = 20.0
_COMMIT_INTERVAL_S = 1.0
# A name may have 249 characters, an IPv6 address has up to 45 of them.
_HOST_CHARACTERS_MAX = 190
_POLL_INTERVAL_S = 365 * 86_400.0
"""While a store is down nothing is polled, for which aiokafka would leave the group; heartbeats tell that we live."""


class ServingBoot(BootStrategy):
    """A serving worker opens no consumer and no producer."""

    enable_kafka = False


class _Web(driver.Web):
    """Faust's web server without a page of its own at ``/``; the other pages have settings."""

    production_blueprints = ()

    def _new_transport_tcp(self) -> web.BaseSite:
        app = cast("App", self.app)
        if app.front_door is None:
            return super()._new_transport_tcp()
        return FrontSite(
            self._runner,
            app.front_door,
            host=app.conf.web_bind,
            port=app.conf.web_port,
            is_shared=app.shares_port,
        )

    async def start_server(self) -> None:
        """Listen, and perhaps at a second port too: one that browsers take, or one that is shared with nobody."""
        conf, app = self.app.conf, cast("App", self.app)
        try:
            # Settings have asked this too, but options of ``faust worker`` have the last word.
            refuse_open(conf.web_bind, has_keys=app.has_keys)
            await super().start_server()
        except ValueError as error:
            _refuse(ConfigurationError(f"--web-bind {conf.web_bind}: {error}"))
        except OSError as error:
            _refuse(
                ConfigurationError(
                    f"no worker can listen at {conf.web_bind}:{conf.web_port} ({error.strerror}); if another one does, "
                    f"perhaps of `make run`, stop it, or set FRESHET_WEB_PORT"
                )
            )
        page_port = app.page_port_beside(conf.web_port)
        if page_port:
            try:
                await web.TCPSite(self._runner, conf.web_bind, page_port).start()
            except OSError as error:
                if app.needs_page_port:
                    _refuse(ConfigurationError(f"FRESHET_PAGE_PORT: {error.strerror}; give each worker one of its own"))
                log.warning("the page is not at port %d: %s", page_port, error.strerror)


class App(faust.App):
    """A Faust app that opens its platform before its services start and closes it after they stop."""

    open_platform: Callable[[], Awaitable[None]]
    close_platform: Callable[[], Awaitable[None]]
    attach_routes: Callable[[web.Application], None]
    page_port_beside: Callable[[int], int]
    instance = ""
    needs_page_port = False
    has_keys = False
    shares_port = False
    front_door: FrontDoor | None = None
    _routes_attached = False

    async def on_first_start(self) -> None:
        """Open stores and tasks; the broker's address is known from here on, and what the command line says."""
        name = member_name(self)
        if name is not None:
            self.conf.consumer_group_instance_id = name
        try:
            await self.open_platform()
        except FreshetError as error:
            _refuse(error)
        await super().on_first_start()

    async def on_shutdown(self) -> None:
        """Close after everything has stopped: consumer and producer need the broker until then."""
        await super().on_shutdown()
        await self.close_platform()

    def _new_web(self) -> "_Web":
        return _Web(self)

    def on_webserver_init(self, web: Any) -> None:
        """Add the routes; Faust calls this twice."""
        if not self._routes_attached:
            self._routes_attached = True
            self.attach_routes(web.web_app)

    def _create_directories(self) -> None:
        """Create nothing: state is not kept in Faust's data directory."""


def new_app(settings: Settings, access: KafkaAccess, *, ownership: Ownership) -> App:
    """Return a Faust app for a role; every role has its own consumer group."""
    app = App(
        f"freshet-{settings.role}",
        # Where the embedded broker will listen nobody knows yet; Faust wants a place for its banner.
        broker=[f"kafka://{place}" for place in (["embedded"] if settings.is_embedded else settings.broker.split(","))],
        broker_credentials=access.for_faust(),
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_ms / 1000,
        broker_heartbeat_interval=settings.session_timeout_ms / 1000 / 10,
        broker_rebalance_timeout=REBALANCE_TIMEOUT_S,
        broker_request_timeout=_REQUEST_TIMEOUT_S,
        broker_commit_interval=_COMMIT_INTERVAL_S,
        broker_max_poll_interval=_POLL_INTERVAL_S,
        broker_max_poll_records=settings.run_records_max,
        producer_linger=0.0,
        producer_max_batch_size=512 * 1024,
        producer_request_timeout=_REQUEST_TIMEOUT_S,
        stream_wait_empty=True,
        web_bind=settings.web_host,
        web_host=settings.web_host,
        web_port=settings.web_port,
        # Faust makes one of host and port, and takes an IPv6 address for both.
        canonical_url=settings.base_url,
        web_tables_enabled=False,
        web_router_enabled=False,
        web_stats_enabled=False,
        web_graph_enabled=False,
        web_metrics_enabled=False,
        web_application_options={"client_max_size": BODY_BYTES_MAX},
        logging_config=logging_config(settings.log_level),
    )
    app.instance, app.has_keys = settings.instance, bool(settings.keys)
    app.page_port_beside, app.needs_page_port = settings.page_port_beside, settings.page_port is not None
    app.shares_port = settings.share_port
    fence = Fence(session_timeout_ms=settings.session_timeout_ms, die=die)
    app.transport = Transport(app.conf.broker_consumer, app, fence=fence, ownership=ownership, die=die)
    app.producer_transport = app.transport
    if not settings.role.ingests:
        app.boot_strategy = ServingBoot(app)
    return app


def member_name(app: App) -> str | None:
    """Return under which name a worker is a static member of its group, or None: then it is a new one at each start.

    Host name, address and port by default: while one worker listens there no other can, so two on one host never share
    a name. They are those that it listens at, which options of ``faust worker`` may have changed.
    """
    if app.instance or not app.conf.web_enabled:
        return app.instance or None
    host, address = (re.sub(r"[^A-Za-z0-9._-]", "-", name) for name in (socket.gethostname(), app.conf.web_bind))
    return f"{host[:_HOST_CHARACTERS_MAX]}-{address}-{app.conf.web_port}"


def _refuse(error: FreshetError) -> NoReturn:
    """End a start that cannot work with its reason alone: Faust would add a trace and stop what never started.

    Embedded services that run already end with this process.
    """
    # Not through sys.stderr, which Faust has replaced by a logger.
    os.write(2, f"freshet: {error}\n".encode())
    os._exit(1)

"""The place that a worker listens at: connections come to the front door first, then to aiohttp's web server."""

import asyncio
from typing import cast

from aiohttp import web
from typing_extensions import override
from yarl import URL

from serving.front_door import FrontDoor


class FrontSite(web.BaseSite):
    """A port with a front door."""

    def __init__(
        self, runner: web.AppRunner, door: FrontDoor, *, host: str, port: int, is_shared: bool, backlog: int = 1_024
    ) -> None:
        """Listen nowhere yet.

        Args:
            runner: Of the web server behind the door.
            door: Meets whoever connects.
            host: Address to listen at.
            port: Port to listen at.
            is_shared: Whether other processes may listen at the same port; the kernel spreads connections over them.
            backlog: How many connections may wait to be accepted.
        """
        super().__init__(runner, backlog=backlog)
        self._door = door
        self._host = host
        self._port = port
        self._is_shared = is_shared

    @property
    @override
    def name(self) -> str:
        return str(URL.build(scheme="http", host=self._host, port=self._port))

    @override
    async def start(self) -> None:
        await super().start()
        server = cast("web.Server", self._runner.server)
        self._server = await asyncio.get_running_loop().create_server(
            self._door.protocol(server),
            self._host,
            self._port,
            backlog=self._backlog,
            reuse_port=self._is_shared or None,
        )
        self._door.open()

    @override
    async def stop(self) -> None:
        await super().stop()
        await self._door.close()

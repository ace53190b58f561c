"""The demo on services and workers that run already: its events into their Kafka, every value read where they serve.

Their figures are spread over processes that need not be reachable from here, so what Kafka knows is followed instead: a
committed offset says that everything before it is durable. The check then counts from nothing, so the sources must be
empty: whatever else they hold would be in the served values too.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain

import aiohttp

from app.dead_letters import ends_of
from app.demo import REGISTRY
from app.kafka.access import KafkaAccess, kafka_access
from app.kafka.admin import KafkaAdmin
from app.kafka.groups import group_of
from app.kafka.probe import require_kafka
from app.settings import Role, Settings
from core.definitions import Registry
from core.errors import ConfigurationError
from core.topics import DEAD_LETTERS, repartition_topic
from demo.figures import Figures, Ingest
from demo.narration import Narration
from demo.session import Report, Session

_GROUPS = [group_of(role) for role in Role if role.ingests]
_PROBE = {"features": ["user_taste:impressions_all"], "entities": {"user_id": [0]}}
_PROBE_DEADLINE_S = 10.0
_DETAIL_CHARACTERS = 300


async def run_demo_at(settings: Settings, places: Sequence[str], *, say: Callable[[str], None]) -> Report:
    """Replay the demo into the brokers of the settings and check every value at each place; nothing is started.

    Args:
        settings: Brokers, and the key if the workers ask for one.
        places: Base URLs of workers that serve, as ``http://127.0.0.1:6566``.
        say: Told, in lines, how far it is.

    Raises:
        ConfigurationError: The sources are not empty, nobody reads them, or a place does not serve the demo's features.
        BrokerError: Kafka gave no answer or refused an event.
        DemoError: Events were not accounted for in time.
    """
    if settings.is_embedded:
        raise ConfigurationError("--at needs FRESHET_BROKER, the brokers that the workers there read from")
    registry = settings.model_copy(update={"registry": REGISTRY}).load_registry()
    access = kafka_access(settings)
    key = settings.api_key.get_secret_value()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    bases = [place.rstrip("/") for place in places]
    for base_url in bases:
        await _require_serving(base_url, headers)
    await asyncio.to_thread(_require_beginning, access, registry)
    followed = _Followed(access, KafkaAdmin(access), registry)
    session = Session(bases, access.for_librdkafka(), registry=registry, read=followed.read, headers=headers)
    narration = Narration(say)
    run = asyncio.create_task(session.run())
    try:
        while not run.done():
            await asyncio.wait([run], timeout=0.5)
            narration.look(session.progress)
        return run.result()
    finally:
        session.stop()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Followed:
    """A platform, followed by what its consumer groups have committed."""

    access: KafkaAccess
    admin: KafkaAdmin
    registry: Registry

    def read(self) -> tuple[Figures, Ingest]:
        """Return how it stands. What is committed of sources is in the repartition topics, so those are read after."""
        committed = self._committed()
        events = sum(offset for (topic, _), offset in committed.items() if topic in self.registry.sources)
        ends = {
            (topic, partition): end
            for topic in map(repartition_topic, self.registry.entities)
            for partition, end in ends_of(self.access, topic).items()
        }
        committed = self._committed()
        lag = sum(max(end - committed.get(place, 0), 0) for place, end in ends.items())
        letters = sum(ends_of(self.access, DEAD_LETTERS).values())
        return Figures(committed=events, dead_letters=letters), Ingest(ready=True, lag=lag, rows=0)

    def _committed(self) -> dict[tuple[str, int], int]:
        """Return the furthest offset of each partition; a group that another one took over from stays behind."""
        found: dict[tuple[str, int], int] = {}
        for place, offset in chain.from_iterable(self.admin.offsets(group).items() for group in _GROUPS):
            found[place] = max(offset, found.get(place, 0))
        return found


async def _require_serving(base_url: str, headers: Mapping[str, str]) -> None:
    deadline = aiohttp.ClientTimeout(total=_PROBE_DEADLINE_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=deadline, headers=headers) as session,
            session.post(f"{base_url}/get-online-features", json=_PROBE) as answer,
        ):
            status, body = answer.status, await answer.text()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ConfigurationError(f"no worker serves at {base_url}: {error or 'no answer'}") from error
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise ConfigurationError(
            f"the worker at {base_url} does not let us read: set FRESHET_API_KEY to a key with the scope read"
        )
    if status != HTTPStatus.OK:
        raise ConfigurationError(
            f"the worker at {base_url} does not serve the demo's features ({REGISTRY}): "
            f"status {status}, {body[:_DETAIL_CHARACTERS]}"
        )


def _require_beginning(access: KafkaAccess, registry: Registry) -> None:
    require_kafka(access)
    held = [topic for topic in registry.sources if any(ends_of(access, topic).values())]
    if held:
        raise ConfigurationError(
            f"there were events in {', '.join(held)} already, and the demo counts from nothing: stop and start the "
            f"services anew (docs/how-to/real-services.md)"
        )
    if not KafkaAdmin(access).members(_GROUPS):
        raise ConfigurationError(f"no worker reads from Kafka at {access}: start one, or set FRESHET_BROKER to theirs")

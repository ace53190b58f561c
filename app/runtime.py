"""Where the running demo or embedded worker is, for commands in another terminal: a file in the working directory."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from app.kafka.access import KafkaAccess, kafka_access
from app.settings import Settings
from core.errors import ConfigurationError

_PLACE = Path(".freshet") / "running.json"


@dataclass(frozen=True, slots=True)
class Runtime:
    """A running demo or embedded worker.

    Attributes:
        pid: Process that keeps the file, and ends with what it describes.
    """

    broker: str
    base_url: str
    pid: int


@contextmanager
def keep_runtime(*, broker: str, base_url: str) -> Iterator[None]:
    """Tell where a platform is while it runs; the newest of a directory is told, and removes nobody else's."""
    own = json.dumps(asdict(Runtime(broker, base_url, os.getpid())))
    _PLACE.parent.mkdir(exist_ok=True)
    _PLACE.write_text(own)
    try:
        yield
    finally:
        with suppress(OSError):
            # Somebody else's file in it stays, and the directory with it.
            if _PLACE.read_text() == own:
                _PLACE.unlink()
            _PLACE.parent.rmdir()


def find_runtime() -> Runtime:
    """Return where the platform is that was started last in this directory.

    Raises:
        ConfigurationError: None runs.
    """
    nothing = (
        "nothing runs in this directory, or it is still starting: start `make run` or an embedded worker here; or set "
        "FRESHET_BROKER"
    )
    try:
        runtime = Runtime(**json.loads(_PLACE.read_text()))
        os.kill(runtime.pid, 0)
    except (FileNotFoundError, ProcessLookupError, TypeError, ValueError) as error:
        raise ConfigurationError(nothing) from error
    return runtime


def running_access(settings: Settings) -> KafkaAccess:
    """Return the way to the brokers that settings name, or to the embedded one that runs in this directory.

    Raises:
        ConfigurationError: Settings that do not fit together, or nothing runs.
    """
    return kafka_access(settings, find_runtime().broker) if settings.is_embedded else kafka_access(settings)

"""Where the running demo is, for commands in another terminal: a small file in the working directory."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import ConfigurationError

_PLACE = Path(".freshet") / "running.json"


@dataclass(frozen=True, slots=True)
class Runtime:
    """A running demo."""

    broker: str
    base_url: str


@contextmanager
def keep_runtime(*, broker: str, base_url: str) -> Iterator[None]:
    """Tell where the demo is while it runs."""
    _PLACE.parent.mkdir(exist_ok=True)
    _PLACE.write_text(json.dumps(asdict(Runtime(broker, base_url))))
    try:
        yield
    finally:
        _PLACE.unlink(missing_ok=True)
        with suppress(OSError):
            # Somebody else's file in it stays, and the directory with it.
            _PLACE.parent.rmdir()


def find_runtime() -> Runtime:
    """Return where the demo of this directory is.

    Raises:
        ConfigurationError: None runs.
    """
    try:
        return Runtime(**json.loads(_PLACE.read_text()))
    except FileNotFoundError as error:
        raise ConfigurationError(
            "no demo runs in this directory: `make run` starts one; or set FRESHET_BROKER"
        ) from error

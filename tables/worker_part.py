"""One directory for all workers of a machine: a part is one worker's while it lives, and nothing is left of the dead.

A part is a worker's while it holds the lock of the file beside it; the kernel lets go of it when the process ends,
however it ends.
"""

import fcntl
import os
import re
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path

_NAME = re.compile(r"worker-\d+")


@dataclass(frozen=True, slots=True)
class WorkerPart:
    """A part of a directory that is ours until it is given up.

    Attributes:
        directory: Where it is; it need not be there.
        lock: Descriptor of the file that is locked.
    """

    directory: Path
    lock: int

    @classmethod
    def take(cls, root: Path) -> "WorkerPart":
        """Remove what dead workers have left, and take the first part that is nobody's.

        Raises:
            OSError: The directory cannot be used.
        """
        root.mkdir(parents=True, exist_ok=True)
        for path in root.glob("*.lock"):
            # The directory may hold other things than ours.
            part = _try(root, path.stem) if _NAME.fullmatch(path.stem) else None
            if part is not None:
                part.give_up()
        return next(part for number in count() if (part := _try(root, f"worker-{number}")) is not None)

    def give_up(self) -> None:
        """Remove the part, and leave it to others."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self.lock)


def _try(root: Path, name: str) -> WorkerPart | None:
    """Return a part, empty, or None if it is somebody's."""
    lock = os.open(root / f"{name}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    # Whoever had it may have died just now.
    shutil.rmtree(root / name, ignore_errors=True)
    return WorkerPart(root / name, lock)

"""Environments for others' packages, made once and kept in the user's cache: their dependencies are not ours."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

LOCK = Path(__file__).with_name("requirements.lock")
_INSTALL_DEADLINE_S = 900


def feast_python() -> Path:
    """Return the interpreter of an environment with the stock Feast SDK: 600 MB, one to four minutes if it is made."""
    return locked_python("feast-0.67", LOCK)


def locked_python(name: str, requirements: Path) -> Path:
    """Return the interpreter of an environment, which is made first if it is not there.

    Its directory's name holds the hash of the locked requirements, so a changed lock makes another one.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "freshet"
    tag = f"py{sys.version_info.major}{sys.version_info.minor}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]}"
    place = cache / f"{name}-{tag}"
    ready, python = place / ".ready", place / "bin" / "python"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{place.name}.lock").open("w") as lock:
        # Two test runs at once make it once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(place, ignore_errors=True)
            venv.create(place, with_pip=True)
            install = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary",
                ":all:",
            ]
            subprocess.run(
                [python, *install, "--require-hashes", "-r", requirements], check=True, timeout=_INSTALL_DEADLINE_S
            )  # fmt: skip
            ready.touch()
    return python

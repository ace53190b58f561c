"""The load: ``wrk`` as fast as a server answers, ``h2load`` at a rate; both are C, so that they are not what limits."""

import json
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from bench.serving.wire import PATH
from core.errors import ConfigurationError

_BODIES = 200
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Load:
    """What a server stood.

    Attributes:
        rps: Answers per second.
        p50_ms: Median latency.
        p99_ms: Latency that one of a hundred exceeds.
        failed: Answers that were none.
    """

    rps: float
    p50_ms: float
    p99_ms: float
    failed: int


def bodies(asked: dict[str, Any], *, users: int, entities: int) -> list[bytes]:
    """Return bodies of requests for so many random users each, always the same ones."""
    chance = Random(1)  # noqa: S311  # the same for every server
    return [
        json.dumps({"entities": {"user_id": chance.sample(range(users), entities)}, **asked}).encode()
        for _ in range(_BODIES)
    ]


def saturate(base_url: str, wanted: Sequence[bytes], *, connections: int, seconds: int, core: int) -> Load:
    """Ask as fast as answers come."""
    _require("wrk")
    with tempfile.TemporaryDirectory() as directory:
        script = write_script(Path(directory), wanted)
        done = subprocess.run(
            ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout",
             "10s", "-s", script, base_url],
            capture_output=True, text=True, check=True, timeout=seconds + 60,
        )  # fmt: skip
    text = done.stdout
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    for line in re.findall(r"Socket errors: (.*)", text):
        failed += sum(map(int, re.findall(r"\d+", line)))
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if found is None:
        raise ConfigurationError(f"wrk says nothing of requests per second:\n{text}")
    return Load(float(found[1]), _percentile(text, "50%"), _percentile(text, "99%"), failed)


def write_script(directory: Path, wanted: Sequence[bytes]) -> Path:
    """Write what makes wrk ask for one body after the other, again and again; return where it is."""
    script = directory / "load.lua"
    listed = ",\n".join(f"[==[{body.decode()}]==]" for body in wanted)
    script.write_text(
        f"local bodies = {{{listed}}}\nlocal n = 0\n"
        'local headers = {["Content-Type"] = "application/json"}\n'
        f'request = function()\n  n = n % #bodies + 1\n  return wrk.format("POST", "{PATH}", headers, bodies[n])\n'
        "end\n"
    )
    return script


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, by its status and how long it took."""

    status: int
    took_ms: float


def pace(base_url: str, body: bytes, *, rps: int, connections: int, seconds: int, core: int) -> Load:
    """Ask at a rate, whether answers come or not."""
    answers = logged(base_url, body, rps=rps, connections=connections, seconds=seconds, core=core)
    cuts = statistics.quantiles([answer.took_ms for answer in answers], n=100)
    return Load(len(answers) / seconds, cuts[49], cuts[98], sum(answer.status != 200 for answer in answers))


def logged(base_url: str, body: bytes, *, rps: int, connections: int, seconds: int, core: int) -> list[Answered]:
    """Ask at a rate, whether answers come or not; return each answer."""
    _require("h2load")
    with tempfile.TemporaryDirectory() as directory:
        data, log = Path(directory) / "body.json", Path(directory) / "log"
        data.write_bytes(body)
        subprocess.run(
            ["taskset", "-c", str(core), "h2load", "--h1", "-t1", f"-c{connections}", f"-D{seconds}",
             f"--rps={rps / connections:.2f}", "-d", data, f"--log-file={log}", "-H", "content-type: application/json",
             f"{base_url}{PATH}"],
            capture_output=True, check=True, timeout=seconds + 60,
        )  # fmt: skip
        lines = [line.split("\t") for line in log.read_text().splitlines()]
    return [Answered(int(line[1]), int(line[2]) / 1e3) for line in lines]


def _percentile(text: str, name: str) -> float:
    found = re.search(rf"{name}\s+([\d.]+)(us|ms|s)", text)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def _require(program: str) -> None:
    if shutil.which(program) is None:
        package = {"wrk": "wrk", "h2load": "nghttp2-client"}[program]
        raise ConfigurationError(f"{program} is needed: apt-get install {package}")

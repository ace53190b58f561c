"""``freshet services`` as a user has it: commands of their own, real servers that run on between them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka.admin import AdminClient

from tests.acceptance.conftest import until

DEADLINE_S = 120.0


def freshet(*arguments, cwd):
    """Run a command to its end; return its status and what it printed."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "freshet"), "services", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def states(cwd):
    _, told, _ = freshet("status", "--json", cwd=cwd)
    return {server["name"]: server["state"] for server in json.loads(told)["servers"]}


def pids(cwd):
    _, told, _ = freshet("status", "--json", cwd=cwd)
    return {server["name"]: server["pid"] for server in json.loads(told)["servers"]}


def working_in(directory):
    """Return the processes that work in a directory: what the servers do, whatever they call themselves."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(directory):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory in which the services run; most tests look at the same ones."""
    directory = tmp_path_factory.mktemp("user")
    status, _, complaint = freshet("up", cwd=directory)
    assert status == 0, complaint
    yield directory
    freshet("down", cwd=directory)


def test_up_prints_the_environment_that_a_worker_needs(place):
    """
    Whoever evaluates the lines in a shell must reach all three servers with them, the second time as the first.
    """
    status, lines, _ = freshet("up", cwd=place)
    again = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'{lines}\nexec "$0" -c "import os, json; print(json.dumps(dict(os.environ)))"',
            sys.executable,
        ],
        capture_output=True,
        check=True,
    )
    environment = json.loads(again.stdout)

    assert status == 0
    assert AdminClient({"bootstrap.servers": environment["FRESHET_BROKER"]}).list_topics(timeout=10).brokers
    with redis.Redis.from_url(environment["FRESHET_REDIS"]) as client:
        assert client.ping()
    assert environment["FRESHET_RECORD"].startswith("dynamodb://freshet?region=")
    assert environment["AWS_ACCESS_KEY_ID"]


def test_up_twice_starts_nothing_twice(place):
    """
    A developer who forgot that the services run must not get a second Kafka, nor lose the first one's data.
    """
    before = pids(place)

    status, told, _ = freshet("up", "--json", cwd=place)

    assert status == 0
    assert pids(place) == before
    assert json.loads(told)["FRESHET_BROKER"].count(",") == 0


def test_another_number_of_brokers_is_refused_while_the_services_run(place):
    """
    Who asks for three brokers and gets one would test failover on nothing.
    """
    status, _, complaint = freshet("up", "--brokers", "3", cwd=place)

    assert status == 2
    assert "with 1 brokers, not 3" in " ".join(complaint.split())


def test_a_server_that_was_killed_is_told_and_down_still_leaves_nothing(place):
    """
    After an out-of-memory kill: ``status`` names the victim, ``up`` refuses to pretend, ``down`` removes the rest.
    The last test that the services of this module serve.
    """
    psutil.Process(pids(place)["redis"]).kill()
    until(lambda: states(place)["redis"] == "ended", "the end of redis is seen")

    refused, _, complaint = freshet("up", cwd=place)
    status, _, _ = freshet("status", cwd=place)
    downed, _, _ = freshet("down", cwd=place)

    assert (refused, status, downed) == (2, 1, 0)
    assert "redis" in complaint
    assert working_in(place) == []
    assert list(place.iterdir()) == []


def test_up_that_is_killed_on_the_way_leaves_no_server(tmp_path):
    """
    Ctrl-C, a closed terminal or kill -9 while Kafka starts must not leave a JVM that no file knows of.
    """
    command = [str(Path(sys.executable).parent / "freshet"), "services", "up"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
        until(lambda: working_in(tmp_path / ".freshet"), "a server is being started", deadline_s=DEADLINE_S)
        starting.kill()

    until(lambda: working_in(tmp_path / ".freshet") == [], "the servers die with the command")
    assert freshet("down", cwd=tmp_path)[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_stale_file_does_not_harm_whoever_has_the_number_now(tmp_path):
    """
    After a power cut the file names numbers that other programs have since: they are not ours to signal.
    """
    bystander = psutil.Process(os.getpid())
    directory = tmp_path / ".freshet" / "services"
    directory.mkdir(parents=True)
    server = {"name": "redis", "place": "redis://127.0.0.1:1/0", "log": "", "pid": bystander.pid, "command": ["redis"]}
    known = {"bootstrap": "127.0.0.1:1", "redis_url": "", "dynamodb_url": "", "servers": [server]}
    (directory / "services.json").write_text(json.dumps(known))

    told = states(tmp_path)
    status, _, complaint = freshet("down", cwd=tmp_path)

    assert told == {"redis": "ended"}
    assert status == 0
    assert "0 processes stopped" in complaint
    assert bystander.is_running()
    assert list(tmp_path.iterdir()) == []


def test_folders_of_somebody_else_are_not_removed(tmp_path):
    """
    ``--directory`` at a place where somebody keeps a folder named kafka must not cost them that folder.
    """
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "notes.txt").write_text("mine")

    upped, _, complaint = freshet("up", "--directory", str(tmp_path), cwd=tmp_path)
    downed, _, _ = freshet("down", "--directory", str(tmp_path), cwd=tmp_path)

    assert (upped, downed) == (2, 2)
    assert "--directory" in complaint
    assert (tmp_path / "kafka" / "notes.txt").read_text() == "mine"

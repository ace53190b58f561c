"""What must agree between containers and plain processes, and what holds servers to the life of their owner."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core.errors import ConfigurationError
from services.java import fetch_jars, find_java
from tests.acceptance.conftest import until
from tests.real import DYNAMODB_IMAGE, KAFKA_IMAGE, REDIS_IMAGE

ROOT = Path(__file__).parents[2]

# An owner that starts a server on a leash, says which, and is then killed.
OWNER = """
import sys, tempfile, time
from pathlib import Path
from services.leash import Leash
from services.server_process import ServerProcess
directory = Path(sys.argv[1])
server = ServerProcess("sleeper", ["sleep", "600"], directory=directory, log=directory / "log", leash=Leash())
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def test_a_server_on_a_leash_dies_with_an_owner_that_is_killed(tmp_path):
    """
    A test run that is killed must not leave a JVM that holds half a gigabyte until the next reboot.
    """
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as owner:
        server = psutil.Process(int(owner.stdout.readline()))
        owner.kill()

    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, "the server dies too")


def test_a_machine_without_java_is_told_what_to_install(monkeypatch, tmp_path):
    """
    A newcomer without a JVM reads one sentence and not a FileNotFoundError.
    """
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match="Java 17 or newer"):
        find_java()


def test_a_machine_without_maven_is_told_what_to_install_and_keeps_no_half_directory(monkeypatch, tmp_path):
    """
    What a failed fetch leaves behind must not look like jars to the next one.
    """
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match="there is no Maven"):
        fetch_jars(ROOT / "services" / "kafka.pom.xml", cache=tmp_path / "cache")

    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_containers_and_plain_processes_run_the_same_versions():
    """
    Tests that pass against one Kafka and fail against another would depend on whether Docker runs.
    """
    compose = (ROOT / "docker-compose.yml").read_text()
    kafka = (ROOT / "services" / "kafka.pom.xml").read_text()
    dynamodb = (ROOT / "services" / "dynamodb_local.pom.xml").read_text()

    assert all(f"image: {image}\n" in compose for image in (KAFKA_IMAGE, DYNAMODB_IMAGE, REDIS_IMAGE))
    assert f"<version>{KAFKA_IMAGE.partition(':')[2]}</version>" in kafka
    assert f"<version>{DYNAMODB_IMAGE.partition(':')[2]}</version>" in dynamodb


def test_compose_publishes_on_loopback_alone():
    """
    A developer's Kafka takes everything from everybody: it must not be open to the café's network.
    """
    published = re.findall(r"ports: \[(.*)\]", (ROOT / "docker-compose.yml").read_text())

    assert len(published) == 3
    assert all(ports.startswith('"127.0.0.1:') for ports in published)


def test_compose_stops_and_lists_without_any_variable():
    """
    Whoever runs `docker compose down` in another shell than the one of `up` would be refused; workers without keys
    refuse by themselves.
    """
    assert ":?" not in (ROOT / "docker-compose.yml").read_text()


def test_the_image_holds_what_the_locked_tests_ran_with():
    """
    A container with another version of a library than the tests had is a container that nobody tested.
    """
    tested = set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    shipped = set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements.runtime.lock").read_text(), re.MULTILINE))

    assert shipped
    assert shipped <= tested

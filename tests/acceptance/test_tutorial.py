"""The tutorial as its reader goes through it: its files are written, its commands run, its answers compared."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from tests.acceptance.conftest import free_port

TUTORIAL = Path("docs/tutorial/your-own-domain.md")
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<language>\w+)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"`(?P<name>\w+\.py)`[^`]*:$")


class Step(NamedTuple):
    """A file to write, lines to add to it, or a command to run with what it is to answer; ``…`` stands for anything."""

    name: str
    text: str
    kind: Literal["file", "change", "command"]


def steps(text: str) -> Iterator[Step]:
    """Return the steps of a tutorial in their order; code that is not said to be a file is left out.

    What is added later is added to ``market.py``.
    """
    for block in _BLOCK.finditer(text):
        if block["language"] == "python":
            found = _FILE.search(block["before"])
            if found:
                yield Step(found["name"], block["text"], "file")
        elif block["language"] == "diff":
            yield Step("market.py", block["text"], "change")
        else:
            for command in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
                line, _, answer = command.partition("\n")
                yield Step(line, answer, "command")


def changed(text: str, change: str) -> str:
    """Return a file's text with the lines added that a change marks, between those that it shows around them."""
    lines = change.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if not line.startswith("+"))
    assert text.count(old) == 1, f"there is no such place:\n{old}"
    return text.replace(old, "".join(line[1:] for line in lines))


def matches(expected: str, said: str) -> bool:
    """Whether an answer has the expected parts in their order; spaces and ends of lines do not matter."""
    parts = [re.escape("".join(part.split())) for part in expected.split("…")]
    return re.search(".*".join(parts), "".join(said.split())) is not None


class Shell:
    """One shell for all commands, as the reader has one terminal."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["/bin/bash"], cwd=directory, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, command: str) -> str:
        """Run a command and return what it says."""
        if command.endswith("&"):
            command = f"{command[:-1]}>worker.log 2>&1 &"
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.write(f"{command}\necho\necho --done--\n")
        self._shell.stdin.flush()
        said = []
        for line in self._shell.stdout:
            if line == "--done--\n":
                return "".join(said)
            said.append(line)
        raise AssertionError(f"the shell ended at {command!r}: {''.join(said)}")

    def close(self) -> None:
        os.killpg(self._shell.pid, signal.SIGTERM)
        self._shell.communicate(timeout=10)


@pytest.fixture
def shell(tmp_path) -> Iterator[Shell]:
    opened = Shell(tmp_path, {**os.environ, "FRESHET_EXIT_WITH_PARENT": "true", "COLUMNS": "100"})
    yield opened
    opened.close()


def test_the_tutorial_works_as_it_is_written(shell, tmp_path):
    """
    A newcomer who follows it to the letter and gets something else gives up at that line.
    """
    port = free_port()
    text = TUTORIAL.read_text().replace("127.0.0.1:6566", f"127.0.0.1:{port}")
    shell.run(f"export FRESHET_WEB_PORT={port} PATH={Path(sys.executable).parent}:$PATH")
    asked = 0
    for step in steps(text):
        file = tmp_path / "market" / step.name
        if step.kind == "file":
            file.write_text(step.text)
        elif step.kind == "change":
            file.write_text(changed(file.read_text(), step.text))
        elif step.name != "make setup" and not step.name.startswith(". /path"):
            said = shell.run(step.name)
            asked += 1
            assert matches(step.text, said), f"$ {step.name}\n{said}"
    assert asked > 12

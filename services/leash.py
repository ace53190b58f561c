"""Servers that cannot outlive the one who started them, even if it dies by kill -9.

A shell waits in a process group of its own for the end of its standard input, and then kills that group. The pipe ends
when its owner closes it or dies. Servers are started into the group, so that none is forgotten and no process id is
ever kept; and Ctrl-C in a terminal, which goes to the group in the foreground, passes them by.
"""

import subprocess
from typing import Self

_WATCH = "read -r _ || kill -9 0"


class Leash:
    """A process group that ends with its owner.

    Attributes:
        group: Its number, for ``subprocess.Popen(process_group=...)``.
    """

    def __init__(self) -> None:
        """Start the process that watches."""
        self._watch = subprocess.Popen(  # noqa: S603 - a constant
            ["/bin/sh", "-c", _WATCH], stdin=subprocess.PIPE, process_group=0
        )
        self.group = self._watch.pid

    def release(self) -> None:
        """Kill what is left of the group, and wait for the watcher; a second call does nothing."""
        if self._watch.stdin is not None and not self._watch.stdin.closed:
            self._watch.stdin.close()
        self._watch.wait()

    def let_go(self) -> None:
        """Let the group live on after its owner, from now on; nothing can be started into it any more."""
        if self._watch.stdin is not None and not self._watch.stdin.closed:
            self._watch.stdin.write(b"\n")
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

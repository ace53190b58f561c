"""Code written from definitions: functions compiled once, so that no event and no read interprets a definition again.

Interpreting a group for each event (which steps, which columns, which tiles) costs several times what its additions
do. So a plan is written out as plain Python, once per worker, as ``dataclasses`` writes an ``__init__``. Names in the
code stand for objects, which are handed over beside it; no text of a user ever becomes code.
"""

import linecache
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

_numbers = count(1)


class Code:
    """A function that is being written.

    >>> code = Code("def add(left, right):")
    >>> with code.block("if left is None:"):
    ...     code.add("return right")
    >>> code.add(f"return left + right * {code.name('factor', 10)}")
    >>> code.compile()(1, 2)
    21
    """

    def __init__(self, head: str) -> None:
        self._lines = [head]
        self._depth = 1
        self._objects: dict[str, Any] = {}

    def add(self, text: str) -> None:
        """Add statements, one per line; their own indentation is kept."""
        self._lines += ["    " * self._depth + line for line in text.splitlines()]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Add a statement that has others inside."""
        self.add(head)
        self._depth += 1
        yield
        self._depth -= 1

    def name(self, word: str, thing: Any) -> str:
        """Return a name of its own that stands for an object in the code."""
        name = f"{word}_{len(self._objects)}"
        self._objects[name] = thing
        return name

    @property
    def text(self) -> str:
        """What has been written."""
        return "\n".join(self._lines) + "\n"

    def compile(self) -> Callable[..., Any]:
        """Return the function; traces through it show its lines."""
        place, text = f"<freshet {next(_numbers)}>", self.text
        linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
        exec(compile(text, place, "exec"), self._objects)  # noqa: S102  # our own text, see above
        function: Callable[..., Any] = self._objects[self._lines[0].removeprefix("def ").partition("(")[0]]
        return function

"""An event loop without time and without chance: time jumps to the next timer, and the order of everything is its own.

Processes live in it side by side. Whose callback it is, the context says in which it was made; so a process can be
stopped (its callbacks wait) or killed (they never run), at any point between two of its steps, as an operating system
does it.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from typing import Any, TypeVar

T = TypeVar("T")

STEPS_MAX = 400_000
"""A schedule that takes more goes round in circles."""


class Process:
    """What a callback belongs to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_stopped = False
        self.held: list[_Handle] = []


_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class StuckError(Exception):
    """Nothing will ever happen any more, or too much did."""


class _Handle:
    """A callback; asyncio cancels it by this interface."""

    __slots__ = ("args", "callback", "context", "when_")

    def __init__(self, callback: Any, args: Any, context: contextvars.Context, when: float) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.when_ = when

    def cancel(self) -> None:
        self.callback = self.args = None

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.when_


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs everything of one schedule."""

    def __init__(self, *, steps_max: int = STEPS_MAX) -> None:
        self._steps_max = steps_max
        self._now = 0.0
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._number = 0
        self._wire = contextvars.copy_context()
        self._wire.run(_process.set, None)
        self.steps = 0

    # -- what asyncio asks for

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Pass over what asyncio says of tasks that never end: their processes were killed."""

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> "asyncio.Task[Any]":
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context, self._now)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        when = self._now + delay
        return self._push(
            when, _Handle(callback, args, contextvars.copy_context() if context is None else context, when)
        )

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self._push(
            when, _Handle(callback, args, contextvars.copy_context() if context is None else context, when)
        )

    def _push(self, when: float, handle: _Handle) -> _Handle:
        self._number += 1
        heappush(self._timers, (when, self._number, handle))
        return handle

    # -- processes

    def start(self, process: Process, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something as a process."""
        context = contextvars.copy_context()
        context.run(_process.set, process)
        return self.create_task(work, context=context)

    def later(self, delay_s: float, callback: Callable[..., Any], *args: Any) -> None:
        """Call something that belongs to no process, whoever asks for it: it is on the wire."""
        when = self._now + delay_s
        self._push(when, _Handle(callback, args, self._wire, when))

    def kill(self, process: Process) -> None:
        """End a process between two of its steps."""
        process.is_alive = False
        process.held.clear()

    def stop_process(self, process: Process) -> None:
        """Let a process stand still."""
        process.is_stopped = True

    def resume(self, process: Process) -> None:
        """Let a process go on; what was due meanwhile comes at once."""
        process.is_stopped = False
        held, process.held = process.held, []
        self._ready.extend(held)

    # -- running

    def run_until(self, future: "asyncio.Future[T]") -> T:
        """Run until a future is done."""
        asyncio._set_running_loop(self)
        try:
            self._run_until(future)
        finally:
            asyncio._set_running_loop(None)
        return future.result()

    def _run_until(self, future: "asyncio.Future[Any]") -> None:
        # One loop with everything at hand: it runs several hundred times in a schedule's few milliseconds.
        ready, timers, done = self._ready, self._timers, future.done
        while not done():
            if not ready:
                if not timers:
                    raise StuckError("nothing will ever happen any more")
                self._now = now = max(self._now, timers[0][0])
                while timers and timers[0][0] <= now:
                    ready.append(heappop(timers)[2])
            handle = ready.popleft()
            if handle.callback is None:
                continue
            process = handle.context.get(_process)
            if process is not None:
                if not process.is_alive:
                    continue
                if process.is_stopped:
                    process.held.append(handle)
                    continue
            self.steps += 1
            if self.steps > self._steps_max:
                raise StuckError(f"{self._steps_max} steps at {self._now:.1f} s")
            handle.context.run(handle.callback, *handle.args)

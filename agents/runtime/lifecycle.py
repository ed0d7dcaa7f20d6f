"""The life of a daemon as a process: start, reload, stop, and what it says at the end.

    async def main(stop: Stop) -> None:
        server = await Server.start(config, clock)
        stop.on_reload(server.reload)
        stop.ready()
        await stop.wait()
        await server.close()

    sys.exit(run(main, clock=clock))

1. `ready` is said by the daemon once it can be used, and not before: whoever starts the next
   program after this one relies on it.
2. SIGTERM or SIGINT asks `main` to end by itself; a second one cancels it.
3. SIGHUP calls the reload callback. A reload that is refused changes nothing: it is logged.
4. The signs of life that a supervisor waits for come from the loop itself, so a loop that is
   stuck is noticed.
5. An `AgentError` that ends `main` is told to a person, without traceback. Any other exception
   is an error of ours: with traceback, to standard error and to the log.
6. One that nobody can catch, as of a callback of the loop, ends nothing: it is a line.
"""

import asyncio
import contextlib
import functools
import inspect
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import uvloop

from agents.runtime import logs
from agents.runtime.clock import Clock
from agents.runtime.errors import AgentError, Exit
from agents.runtime.notify import Notifier

__all__ = ["Exit", "Stop", "report", "run", "version"]

log = logs.get_logger()

Reload = Callable[[], Awaitable[None] | None]


class Stop:
    """What a running daemon has to do with its process. Made by `run`.

    Args:
        clock: Network time, for the signs of life.
        notifier: The supervisor.
    """

    def __init__(self, clock: Clock, notifier: Notifier) -> None:
        self.notifier = notifier
        self.reason = ""
        """Why it was asked to stop: "SIGTERM", or what `request` was given."""
        self._clock = clock
        self._event = asyncio.Event()
        self._reload: Reload | None = None
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self._main: asyncio.Future[None] | None = None

    @property
    def requested(self) -> bool:
        """Whether the daemon was asked to stop."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return when the daemon is asked to stop."""
        await self._event.wait()

    def request(self, reason: str) -> None:
        """Ask the daemon to stop. Idempotent; the first reason counts."""
        if self._event.is_set():
            return
        self.reason = reason
        log.info("daemon.stopping", reason=reason)
        self.notifier.stopping()
        self._event.set()

    def ready(self, status: str = "") -> None:
        """Say that the daemon can be used from now on."""
        log.info("daemon.started", version=version())
        self.notifier.ready(status)

    def on_reload(self, callback: Reload) -> None:
        """Call this at each SIGHUP, one call after the other.

        It reads and checks everything before it changes anything, and raises an `AgentError`
        to refuse.
        """
        self._reload = callback

    @contextlib.asynccontextmanager
    async def _signals(self, main: asyncio.Future[None]) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        self._main = main
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        alive = loop.create_task(self._watchdog())
        try:
            yield
        finally:
            alive.cancel()
            for task in self._reloads:
                task.cancel()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _terminate(self, number: signal.Signals) -> None:
        if self.requested and self._main is not None:
            self._main.cancel()  # it had its chance
        self.request(number.name)

    def _hang_up(self) -> None:
        if self._reload is not None and not self.requested:
            task = asyncio.get_running_loop().create_task(self._do_reload(self._reload))
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    async def _do_reload(self, callback: Reload) -> None:
        # One after the other: a reload swaps what the next one starts from.
        async with self._reloading:
            await self._reload_once(callback)

    async def _reload_once(self, callback: Reload) -> None:
        self.notifier.reloading(self._clock.monotonic())
        try:
            result = callback()
            if inspect.isawaitable(result):
                await result
        except AgentError as exc:
            log.error("daemon.reload_refused", problem=str(exc))
        except Exception as exc:
            log.exception("daemon.reload_refused", problem=f"{type(exc).__name__}: {exc}")
        else:
            log.info("daemon.reloaded")
        finally:
            self.notifier.ready()

    async def _watchdog(self) -> None:
        interval = self.notifier.interval
        while interval is not None:
            self.notifier.watchdog()
            await self._clock.sleep(interval)


def run(
    main: Callable[[Stop], Awaitable[None]],
    *,
    clock: Clock,
    notifier: Notifier | None = None,
    err: TextIO | None = None,
) -> int:
    """Run a daemon on uvloop until it ends, and return the exit code of the process.

    Args:
        main: The daemon. When it returns, the process is done; it need not be asked to.
        clock: Network time, for the signs of life.
        notifier: The supervisor; by default the one that the environment names.
        err: Where to tell a person what went wrong; standard error by default.
    """
    told = notifier if notifier is not None else Notifier.from_environment(os.environ)

    async def live() -> Exit:
        asyncio.get_running_loop().set_exception_handler(_say_uncaught)
        stop = Stop(clock, told)
        task = asyncio.ensure_future(_call(main, stop))
        async with stop._signals(task):
            try:
                await task
            except asyncio.CancelledError:
                if not stop.requested:
                    raise
                return Exit.ERROR  # it did not stop when it was asked to
        return Exit.OK

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(live())
    except Exception as exc:
        told.stopping()
        log.error("daemon.failed", problem=_one_line(exc))
        return report(exc, err=err)


def _say_uncaught(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Log what the loop would write to standard error."""
    problem, error = context["message"], context.get("exception")
    if error is None:
        log.error("callback.failed", problem=problem)
    else:
        log.exception("callback.failed", error, problem=problem)


async def _call(main: Callable[[Stop], Awaitable[None]], stop: Stop) -> None:
    await main(stop)


def report(error: BaseException, *, err: TextIO | None = None) -> int:
    """Tell a person why the program ends, and return its exit code.

    A group of exceptions (from a `TaskGroup`) is told one by one. What is no `AgentError` is
    an error of the program and is told with its traceback.
    """
    out = err if err is not None else sys.stderr
    code = 0
    for one in _leaves(error):
        if isinstance(one, AgentError):
            print(f"anchorline: error: {_visible(str(one))}", file=out)
            if one.hint:
                print(f"anchorline: hint: {_visible(one.hint)}", file=out)
            code = max(code, one.exit_code)
        else:
            traceback.print_exception(one, file=out)
            print(f"anchorline: error: internal error: {_one_line(one)}", file=out)
            print("anchorline: hint: please report this with the lines above it", file=out)
            code = max(code, Exit.ERROR)
    return code


def _visible(text: str) -> str:
    """Text that cannot move a terminal's cursor: it may quote what a peer or a file said."""
    lines = text.split("\n")
    return "\n".join(line if line.isprintable() else ascii(line)[1:-1] for line in lines)


def _leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group of groups; one that came by two ways only once."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    found = [leaf for one in error.exceptions for leaf in _leaves(one)]
    return list({id(one): one for one in found}.values())


def _one_line(error: BaseException) -> str:
    return "; ".join(f"{type(one).__name__}: {one}" for one in _leaves(error))


@functools.cache
def version() -> str:
    """Return the version of the installed program."""
    # By the name of the folder that an installer leaves: `importlib.metadata` says the same, and
    # brings a parser of e-mail, 2 MiB for as long as a daemon lives.
    for folder in sys.path:
        for installed in Path(folder).glob("anchorline-*.dist-info"):
            return installed.stem.removeprefix("anchorline-")
    from importlib import metadata

    return metadata.version("anchorline")

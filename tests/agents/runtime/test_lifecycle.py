import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

import pytest
import uvloop

from agents.runtime.clock import SystemClock
from agents.runtime.errors import AgentError, ConfigError, StateError
from agents.runtime.lifecycle import Exit, Stop, report, run, version
from agents.runtime.notify import Notifier
from tests.support.logs import logged

Lines = list[dict[str, object]]


class Told(Notifier):
    """A supervisor that remembers what it was told."""

    def __init__(self, watchdog: float | None = None) -> None:
        super().__init__("/nowhere", watchdog)
        self.messages: list[str] = []

    def _send(self, *lines: str) -> None:
        self.messages.append(" ".join(line.partition("=")[0] for line in lines))


@pytest.fixture
def lines() -> Iterator[Lines]:
    with logged() as found:
        yield found


def names(lines: Lines) -> list[object]:
    return [line["event"] for line in lines]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_daemon_to_stop(lines: Lines, number: signal.Signals) -> None:
    told = Told()
    closed = []

    async def main(stop: Stop) -> None:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        stop.ready("up")
        assert not stop.requested
        os.kill(os.getpid(), number)
        await stop.wait()
        closed.append(stop.reason)

    before = signal.getsignal(number)
    assert run(main, clock=SystemClock(), notifier=told) == Exit.OK
    assert closed == [number.name]
    assert told.messages == ["READY STATUS", "STOPPING"]
    assert names(lines) == ["daemon.started", "daemon.stopping"]
    assert lines[0]["version"] == version()
    assert lines[1]["reason"] == number.name
    assert signal.getsignal(number) == before


def test_the_version_is_the_one_that_the_installer_says() -> None:
    assert version() == metadata.version("anchorline")


def test_a_second_signal_ends_a_daemon_that_does_not_stop() -> None:
    async def main(stop: Stop) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    assert run(main, clock=SystemClock(), notifier=Told()) == Exit.ERROR


def test_a_daemon_may_end_or_ask_by_itself(lines: Lines) -> None:
    async def main(stop: Stop) -> None:
        stop.request("done")
        stop.request("again")
        await stop.wait()

    assert run(main, clock=SystemClock(), notifier=Told()) == Exit.OK
    assert [line["reason"] for line in lines] == ["done"]


def test_hang_up_reloads_one_at_a_time(lines: Lines) -> None:
    told = Told()

    async def main(stop: Stop) -> None:
        running = asyncio.Lock()
        finished = asyncio.Semaphore(0)

        async def reload() -> None:
            assert not running.locked()
            async with running:
                await asyncio.sleep(0)
            finished.release()

        stop.on_reload(reload)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            await finished.acquire()
        stop._hang_up()
        stop._hang_up()
        await finished.acquire()
        await finished.acquire()
        await asyncio.sleep(0)

    assert run(main, clock=SystemClock(), notifier=told) == Exit.OK
    assert told.messages == ["RELOADING MONOTONIC_USEC", "READY"] * 4
    assert names(lines) == ["daemon.reloaded"] * 4


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ConfigError(["port: unknown"], "x.toml"), "1 problem in x.toml\n  port: unknown"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_a_refused_reload_is_logged_and_the_daemon_goes_on(
    lines: Lines, error: Exception, problem: str
) -> None:
    told = Told()

    async def main(stop: Stop) -> None:
        def reload() -> None:
            stop.on_reload(lambda: stop.request("reloaded"))
            os.kill(os.getpid(), signal.SIGHUP)
            raise error

        stop.on_reload(reload)
        os.kill(os.getpid(), signal.SIGHUP)
        await stop.wait()

    assert run(main, clock=SystemClock(), notifier=told) == Exit.OK
    assert names(lines)[:2] == ["daemon.reload_refused", "daemon.stopping"]
    assert lines[0]["problem"] == problem
    assert told.messages[:2] == ["RELOADING MONOTONIC_USEC", "READY"]


def test_signs_of_life_until_the_end() -> None:
    told = Told(watchdog=1.0)

    class Fast(SystemClock):
        """Lets no time pass, and notes how much was asked for."""

        def __init__(self) -> None:
            super().__init__()
            self.asked: list[float] = []
            self.enough = asyncio.Event()

        async def sleep(self, seconds: float) -> None:
            self.asked.append(seconds)
            if len(self.asked) == 3:
                self.enough.set()
            await asyncio.sleep(0)

    clock = Fast()

    async def main(_stop: Stop) -> None:
        await clock.enough.wait()

    assert run(main, clock=clock, notifier=told) == Exit.OK
    assert set(clock.asked) == {0.5}
    assert told.messages[:3] == ["WATCHDOG"] * 3


def test_what_nobody_can_catch_is_a_line_and_ends_nothing(
    lines: Lines, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main(_stop: Stop) -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def fault() -> None:
            loop.call_soon(done.set)
            raise ZeroDivisionError("ours")

        loop.call_soon(fault)
        await done.wait()
        loop.call_exception_handler({"message": "without an exception"})

    assert run(main, clock=SystemClock(), notifier=Told()) == Exit.OK
    assert names(lines) == ["callback.failed", "callback.failed"]
    assert "ZeroDivisionError: ours" in str(lines[0]["traceback"])
    assert lines[1]["problem"] == "without an exception"
    assert capfd.readouterr().err == ""


def failing(*errors: Exception) -> str:
    """What a person reads when a daemon ends with these errors."""
    err = io.StringIO()

    async def fail(error: Exception) -> None:
        raise error

    async def main(_stop: Stop) -> None:
        async with asyncio.TaskGroup() as group:
            for error in errors:
                group.create_task(fail(error))

    code = run(main, clock=SystemClock(), notifier=Told(), err=err)
    return f"{err.getvalue()}exit {code}\n"


def test_known_errors_are_told_without_traceback(lines: Lines) -> None:
    assert failing(AgentError("port 1 is in use", "stop the other program")) == (
        "anchorline: error: port 1 is in use\nanchorline: hint: stop the other program\nexit 1\n"
    )
    assert names(lines) == ["daemon.failed"]


def test_configuration_is_another_exit_code_than_refusal() -> None:
    assert failing(ConfigError(["a: unknown", "b: missing"], "x.toml")) == (
        "anchorline: error: 2 problems in x.toml\n  a: unknown\n  b: missing\nexit 2\n"
    )
    assert failing(AgentError("x"), StateError("y")) == (
        "anchorline: error: x\nanchorline: error: y\nexit 3\n"
    )


def test_our_own_errors_are_told_with_traceback(lines: Lines) -> None:
    text = failing(TypeError("oops"))
    assert "Traceback (most recent call last)" in text
    assert "in fail" in text
    assert "anchorline: error: internal error: TypeError: oops\n" in text
    assert text.endswith("exit 1\n")
    assert lines[0]["problem"] == "TypeError: oops"


def test_what_a_peer_said_cannot_move_the_cursor() -> None:
    text = failing(AgentError("refused: \x1b[2J\u202egone\n  second line", hint="ask\x07 it"))
    assert text == (
        "anchorline: error: refused: \\x1b[2J\\u202egone\n  second line\n"
        "anchorline: hint: ask\\x07 it\nexit 1\n"
    )


def test_an_error_in_two_groups_is_told_once() -> None:
    err = io.StringIO()
    error = StateError("x")
    group = ExceptionGroup("a", [error, ExceptionGroup("b", [error])])
    assert report(group, err=err) == Exit.REFUSED
    assert err.getvalue() == "anchorline: error: x\n"


DAEMON = """
import asyncio, sys
from agents.runtime.clock import SystemClock
from agents.runtime.lifecycle import run

async def main(stop):
    print("ready", flush=True)
    await stop.wait()
    print(stop.reason, flush=True)

sys.exit(run(main, clock=SystemClock()))
"""


@pytest.mark.sockets
def test_a_process_stops_cleanly() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (out, err, process.returncode) == (b"SIGTERM\n", b"", 0)

"""A process that forks others on request and tells how they ended: `nurse` is its whole life.

    who asks ──SOCK_SEQPACKET──► nursery ──fork──► child, child ...
               a request, with descriptors
               answer: its number and a pid          later: a pid and how it ended

It has done the imports that its children need, so that one of them begins in 10 ms; it has no
loop and no thread, for a fork would tear them. When the other end of the socket closes, however
it went there, it kills what it has left and ends.
"""

import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

__all__ = ["MAX_PACKET", "nurse"]

MAX_PACKET: Final = 64 * 1024
"""Bytes of one request or answer."""
_DESCRIPTORS: Final = 2
"""That may come with a request."""

Request = Mapping[str, Any]
"""`number`, and what a child needs to know. JSON."""
Child = Callable[[Request, Sequence[int]], int]
"""A child's life, given its descriptors; returns its exit code."""


def nurse(sock: socket.socket, child: Child) -> None:
    """Fork children on request and report their ends, until the other side is gone.

    Args:
        sock: Where requests come from and answers go.
        child: Run in each child. An exception is shown, and its exit code is 1.
    """
    # Signals only interrupt the read; the handler itself has nothing to do.
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: set[int] = set()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(wake, select.POLLIN)
    try:
        while True:
            ready = dict(poll.poll())
            if wake in ready:
                with suppress(BlockingIOError):
                    os.read(wake, 4096)
                _report_ended(sock, children)
            if sock.fileno() in ready:
                data, fds, _, _ = socket.recv_fds(sock, MAX_PACKET, _DESCRIPTORS)
                if not data:
                    return
                children.add(_fork(sock, json.loads(data), fds, (wake, woken), child))
    except (BrokenPipeError, ConnectionError):
        return
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _fork(
    sock: socket.socket, request: Request, fds: Sequence[int], pipe: tuple[int, int], child: Child
) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sock.close()
            for fd in pipe:
                os.close(fd)
            code = child(request, fds)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    for fd in fds:
        os.close(fd)
    sock.send(json.dumps({"number": request["number"], "pid": pid}).encode())
    return pid


def _report_ended(sock: socket.socket, children: set[int]) -> None:
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        children.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        sock.send(json.dumps({"pid": pid, "code": code}).encode())

"""Asking a running daemon by the datagram socket in its state directory.

One datagram there, one back: `ok ...` or `error ...`. Who may enter the state directory may ask.
"""

import socket
from pathlib import Path

from agents.cli.sockets import check_path
from agents.runtime.errors import AgentError, UnavailableError, reason_of
from agents.runtime.statefiles import CONTROL

__all__ = ["ask"]

MAX_ANSWER = 4096
TIMEOUT = 30.0
"""Seconds; a renewal is one exchange with a responder."""


def ask(folder: Path, question: bytes, *, timeout: float = TIMEOUT) -> str:
    """Return what the daemon answers.

    Raises:
        SocketPathError: No daemon can have its socket there.
        UnavailableError: No daemon, or no answer in time.
        AgentError: It answers that it could not do it.
    """
    path = folder / CONTROL
    check_path(path, "the control socket", "--state")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.bind("")  # an abstract name from the kernel, for the answer; no file to clean up
        own.settimeout(timeout)
        try:
            own.connect(str(path))
            own.send(question)
            answer = own.recv(MAX_ANSWER).decode("utf-8", "replace").strip()
        except TimeoutError as exc:
            raise UnavailableError(f"the daemon of {folder} did not answer in {timeout} s") from exc
        except OSError as exc:
            raise UnavailableError(
                f"no daemon answers in {folder}: {reason_of(exc)}",
                hint="start it, or run this as root or as the user of the service",
            ) from exc
    word, _, rest = answer.partition(" ")
    if word != "ok":
        raise AgentError(rest or "the daemon could not do it")
    return answer

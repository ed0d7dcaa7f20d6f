"""Configuration of a server."""

from dataclasses import dataclass
from pathlib import Path

from agents.runtime.admission import Admission
from agents.runtime.config import DEFAULT_PORT, HostPort, option, table
from agents.runtime.logs import Level
from pki.certificates import MAX_FQDN

__all__ = ["Config"]


def _fits_a_root(fqdn: str) -> str | None:
    return None if len(fqdn) <= MAX_FQDN else f"expected at most {MAX_FQDN} characters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A server: holds the roots, signs, and answers clients, hubs and administrators."""

    fqdn: str = option(
        "", "Name of this server in its roots; empty: this machine's own.", check=_fits_a_root
    )
    state: Path = option(Path("/var/lib/anchorline/server"), "State directory.")
    standby: Path = option(
        Path("/var/lib/anchorline/standby"),
        "Folder of the standby keys' key file: another one, with a backup of its own.",
    )
    listen: HostPort = option(HostPort("0.0.0.0", DEFAULT_PORT), "Where clients and hubs connect.")  # noqa: S104 - a server is there to be reached
    socket: Path = option(
        Path("/run/anchorline/server.sock"), "Unix socket of the administration API."
    )
    log: Path | None = option(
        None, "Log file; empty: standard error.", example="/var/log/anchorline/server.log"
    )
    log_level: Level = option(Level.INFO, "How much is logged.")
    registration_seconds: float = option(
        90.0,
        "Longest interval between two registrations of a client.",
        "seconds",
        minimum=1,
        maximum=3600,
    )
    pending_seconds: float = option(
        30.0, "How soon a component that waits for approval asks again.", "seconds", minimum=1
    )
    admission: Admission = table(
        Admission,
        "How many may be at the port at once. Who is one too many is told when to come back.",
    )

    def __post_init__(self) -> None:
        """Refuse what the options say together."""
        state, standby = self.state.absolute(), self.standby.absolute()
        if standby.is_relative_to(state) or state.is_relative_to(standby):
            raise ValueError(
                f"standby is {self.standby}, which holds state or lies in it: who copies one of"
                " the two must not get the keys of both; name a folder beside it"
            )

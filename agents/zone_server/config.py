"""Configuration of a zone server."""

from dataclasses import dataclass
from pathlib import Path

from agents.member.options import (
    bundle_option,
    fingerprint_option,
    log_level_option,
    log_option,
    state_option,
)
from agents.runtime.admission import Admission
from agents.runtime.config import DEFAULT_PORT, HostPort, option, table
from agents.runtime.logs import Level

__all__ = ["Config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A zone server: answers outside clients, and waits for its hub."""

    listen: HostPort = option(HostPort("0.0.0.0", DEFAULT_PORT), "Where clients connect.")  # noqa: S104
    hub_listen: HostPort = option(
        HostPort("0.0.0.0", DEFAULT_PORT + 1),  # noqa: S104
        "Where the hub connects; allow only the hub's address through the firewall.",
    )
    state: Path = state_option("zone-server")
    bundle: Path = bundle_option()
    expect_fingerprint: str | None = fingerprint_option()
    registration_seconds: float = option(
        90.0,
        "Longest interval between two registrations of a client.",
        "seconds",
        minimum=1,
        maximum=3600,
    )
    log: Path | None = log_option("zone-server")
    log_level: Level | None = log_level_option()
    admission: Admission = table(
        Admission,
        "How many may be at each port at once. Who is one too many is told when to come back.",
    )

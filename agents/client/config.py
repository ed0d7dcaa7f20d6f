"""Configuration of a client."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from agents.member.options import (
    bundle_option,
    fingerprint_option,
    log_level_option,
    log_option,
    state_option,
)
from agents.runtime.config import DEFAULT_PORT, HostPort, option
from agents.runtime.logs import Level

__all__ = ["Config"]


def _is_an_address(text: str) -> str | None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return "expected an IP address of this machine"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A client: an endpoint."""

    servers: list[HostPort] = option(
        [],
        "Servers or zone servers to report to (ServerNameList), tried in turn; empty: those that"
        " the bundle names.",
        example=["server.example:14172"],
    )
    listen: HostPort = option(
        HostPort("0.0.0.0", DEFAULT_PORT),  # noqa: S104
        "Where the backward neighbour connects. Port 0: any that is free.",
    )
    source: str | None = option(
        None,
        "Source address of connections, and the one that is claimed; empty: any.",
        check=_is_an_address,
    )
    host: str = option("", "Host name that is reported; empty: this machine's own.")
    state: Path = state_option("client")
    bundle: Path = bundle_option()
    expect_fingerprint: str | None = fingerprint_option()
    registration_min: float = option(
        30.0, "Shortest interval between two registrations.", "seconds", minimum=1, maximum=3600
    )
    registration_max: float = option(
        90.0, "Longest interval between two registrations.", "seconds", minimum=1, maximum=3600
    )
    ping: float = option(
        20.0, "Interval of the probe on each standing link.", "seconds", minimum=0.1, maximum=300
    )
    log: Path | None = log_option("client")
    log_level: Level | None = log_level_option()

    def __post_init__(self) -> None:
        """Refuse what the options say together."""
        if self.registration_min > self.registration_max:
            raise ValueError(
                f"registration_min is {self.registration_min:g}, above registration_max, which is"
                f" {self.registration_max:g}"
            )

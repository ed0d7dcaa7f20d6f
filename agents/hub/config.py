"""Configuration of a hub."""

from dataclasses import dataclass
from pathlib import Path

from agents.member.options import (
    bundle_option,
    fingerprint_option,
    log_level_option,
    log_option,
    not_empty,
    state_option,
)
from agents.runtime.config import REQUIRED, HostPort, option
from agents.runtime.logs import Level

__all__ = ["Config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A hub: dials its server and its zone servers, and listens on no port."""

    server: HostPort = option(REQUIRED, "The server to report to.", example="server.example:14172")
    zone_servers: list[HostPort] = option(
        REQUIRED,
        "The hub ports of the zone servers.",
        example=["zone.example:14173"],
        check=not_empty,
    )
    state: Path = state_option("hub")
    bundle: Path = bundle_option()
    expect_fingerprint: str | None = fingerprint_option()
    log: Path | None = log_option("hub")
    log_level: Level | None = log_level_option()

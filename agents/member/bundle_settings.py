"""Settings that an init bundle carries: what a new machine need not be told by hand (D3).

| name | meaning |
| --- | --- |
| `ServerNameList` | servers or zone servers of a client, separated by commas |
| `port` | port of those that are named without one |
| `log_level` | how much is logged |

1. What a component's own configuration says comes first.
2. A bundle's settings count if its chains equal ours once it was imported: then it is as new as
   all that we know (docs/spec/bundle.md, *Import* 2). They are kept, so that they still count when
   our chains have gone on from there.
3. What is no setting is refused at export, and left out at the import: a newer server may know
   more. What has no sense is refused at both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agents.member.member import open_bundle_file
from agents.member.trust import Trust
from agents.runtime import logs
from agents.runtime.address import DEFAULT_PORT, HostPort
from agents.runtime.errors import MissingError, StateError
from agents.runtime.files import DISK, Files
from agents.runtime.logs import Level
from pki.bundle import Bundle

__all__ = [
    "KEPT",
    "LOG_LEVEL",
    "NAMES",
    "PORT",
    "SERVERS",
    "BundleSettings",
    "bundle_settings",
    "parse_settings",
    "take_log_level",
]

SERVERS = "ServerNameList"
PORT = "port"
LOG_LEVEL = "log_level"
NAMES = (SERVERS, PORT, LOG_LEVEL)
"""Every setting that a bundle may carry."""

KEPT = "bundle-settings.json"
"""The file in a component's state directory."""

MAX_FILE = 64 << 10


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """What a bundle says; nothing where it says nothing."""

    servers: tuple[HostPort, ...] = ()
    log_level: Level | None = None


def parse_settings(settings: Mapping[str, str]) -> BundleSettings:
    """Read the settings of a bundle.

    Raises:
        ValueError: there is no such setting, or it cannot be so.
    """
    for name in settings:
        if name not in NAMES:
            raise ValueError(f"no setting {name!r:.80} in a bundle, only {', '.join(NAMES)}")
    port = _port(settings[PORT]) if PORT in settings else DEFAULT_PORT
    names = [one.strip() for one in settings.get(SERVERS, "").split(",")]
    if SERVERS in settings and not all(names):
        raise ValueError(f"{SERVERS} is {settings[SERVERS]!r:.80}, expected host:port,host:port")
    level = settings.get(LOG_LEVEL)
    if level is not None and level not in set(Level):
        raise ValueError(f"{LOG_LEVEL} is {level!r:.40}, expected one of {', '.join(Level)}")
    return BundleSettings(
        tuple(HostPort.parse(name, port) for name in names if name),
        None if level is None else Level(level),
    )


def bundle_settings(
    folder: Path, bundle: Path, trust: Trust, *, files: Files = DISK
) -> BundleSettings:
    """The settings in force of a component that has been given a bundle.

    Args:
        folder: its state directory.
        bundle: the bundle, which may have gone since the first start.
        trust: what it trusts, this bundle included.
        files: where all these lie.

    Raises:
        StateError: a file is damaged, or a setting cannot be so.
    """
    kept = folder / KEPT
    before = settings = _read(kept, files)
    opened = _open(bundle, files)
    if opened is not None and _is_as_new(opened, trust):
        settings = {name: opened.settings[name] for name in NAMES if name in opened.settings}
    try:
        parsed = parse_settings(settings)
    except ValueError as exc:
        raise StateError(
            f"the settings of init bundle {bundle} are refused: {exc}",
            hint="export another one on the server",
        ) from exc
    if settings != before:
        files.write_atomic(kept, msgspec.json.encode(settings))
    return parsed


def _open(bundle: Path, files: Files) -> Bundle | None:
    """The bundle, if there is one that can be used: whether it is needed was decided before."""
    try:
        return open_bundle_file(bundle, files=files, expect=None)
    except StateError:
        return None


def take_log_level(own: Level | None, told: BundleSettings) -> None:
    """Log as much as the bundle says, where the component's own configuration does not say it."""
    if own is None and told.log_level is not None:
        logs.set_level(told.log_level)


def _is_as_new(bundle: Bundle, trust: Trust) -> bool:
    ours = {chain.slot: chain.last.id for chain in trust.state.chains}
    return all(ours.get(chain.slot) == chain.last.id for chain in bundle.chains)


def _read(kept: Path, files: Files) -> dict[str, str]:
    try:
        return msgspec.json.decode(files.read_file(kept, MAX_FILE), type=dict[str, str])
    except MissingError:
        return {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise StateError(
            f"{kept} is damaged: {exc}", hint="remove it, and give the component its newest bundle"
        ) from exc


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536):
        raise ValueError(f"{PORT} is {text!r:.40}, expected a number from 1 to 65535")
    return int(text)

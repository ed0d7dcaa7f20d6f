"""When a subordinate key is renewed: the twelve settings, and one pure function.

    issued            not before this                  draw      draw
    |<- one hour ->|                                   begins    ends        expires
    |--------------|-----------------------------------|---------|-----------|
                   WAIT                                  OBTAIN
                                                       |<------ window ----->|

The *window* is how long before the end a renewal is due. Renewals of a fleet are spread (B13):
each certificate has one date, uniform in the first half of its window, drawn from the holder's
id and the serial number. So it is the same date whenever it is asked for, on any machine, and
nobody has to keep it. The second half is left for a holder that was away or refused. A client
CA is not spread: it is renewed when its window opens, and the new one signs from then on.

What else makes a renewal due: no certificate, an expired one, or one under an older root than
the newest. Nothing makes a schedule renew more than once an hour (B8).

Rules for the settings, in this order, each raise being reported:

1. B8, clients    a validity that does not exceed its window by an hour becomes window + 1 h.
2. A13            the client CA's window is at least the client validity: from the moment when
                  the CA is renewed, the old one could only sign what does not outlive it.
3. B8, others     as 1; for the client CA with the window of 2.

`next_step` decides nothing but dates. That a new key is prepared before the old one is retired
is the keyring's affair.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from pki.certificates import BACKDATE, Kind
from pki.errors import MalformedError
from pki.keys import KeyId

__all__ = [
    "CLIENT_WINDOW",
    "HOUR",
    "MAX_DAYS",
    "MAX_HOURS",
    "ROOT_AGE_LIMIT",
    "ROOT_YOUTH_LIMIT",
    "SETTINGS",
    "Held",
    "Obtain",
    "Policy",
    "Raise",
    "Wait",
    "kind_of",
    "next_step",
    "parse_setting",
    "policies",
    "renewal_time",
    "root_age_warning",
    "too_soon",
]

HOUR: Final = timedelta(hours=1)

MAX_DAYS: Final = 3650
"""Upper bound of a validity. Ten years: beyond that a root is the wrong key to sign it."""
MAX_HOURS: Final = 8760
"""Upper bound of a renewal window. A year."""

CLIENT_WINDOW: Final = "PKIClientTLSKeyRenewalWindowHours"
"""The setting that clients are told: hours before its end that a client TLS key is renewed."""

ROOT_AGE_LIMIT: Final = timedelta(days=365)
"""A newest root older than this is warned about (B16)."""
ROOT_YOUTH_LIMIT: Final = timedelta(days=182)
"""Another root sooner than this after the last is asked about (B16)."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two settings of one kind, with their defaults."""

    validity: str
    days: int
    window: str
    hours: int


# Names and defaults are kept to the letter: policies and scripts of operators use them, and so the
# last one is spelled otherwise.
_PAIRS: Final[Mapping[Kind, _Pair]] = MappingProxyType(
    {
        Kind.SERVER_TLS: _Pair(
            "pki_server_tls_key_duration_days",
            60,
            "pki_server_tls_key_renewal_window_hours",
            4,
        ),
        Kind.MESSAGE_SIGNING: _Pair(
            "pki_message_signing_key_duration_days",
            180,
            "pki_message_signing_key_renewal_window_hours",
            4,
        ),
        Kind.HUB_TLS: _Pair(
            "pki_hub_tls_key_duration_days",
            60,
            "pki_hub_tls_key_renewal_window_hours",
            4,
        ),
        Kind.ZONE_SERVER_TLS: _Pair(
            "pki_zoneserver_tls_key_duration_days",
            60,
            "pki_zoneserver_tls_key_renewal_window_hours",
            4,
        ),
        Kind.CLIENT_CA: _Pair(
            "pki_client_tls_ca_key_duration_days",
            180,
            "pki_client_tls_ca_key_renewal_window_hours",
            168,
        ),
        Kind.CLIENT_TLS: _Pair(
            "pki_client_tls_key_duration_days",
            7,
            CLIENT_WINDOW,
            4,
        ),
    }
)

SETTINGS: Final[Mapping[str, int]] = MappingProxyType(
    {
        name: default
        for pair in _PAIRS.values()
        for name, default in ((pair.validity, pair.days), (pair.window, pair.hours))
    }
)
"""The twelve settings with their defaults; in days or hours, as their names say."""

_WINDOWS: Final = frozenset(pair.window for pair in _PAIRS.values())


@dataclass(frozen=True, slots=True)
class Policy:
    """How long keys of a kind are valid, and how long before their end they are renewed."""

    validity: timedelta
    window: timedelta


@dataclass(frozen=True, slots=True)
class Raise:
    """A setting that a rule has raised; to be shown beside its value."""

    setting: str
    asked: str
    """What was set, with unit, such as `1 day`."""
    effective: str
    """What is in force instead, such as `7 days 1 hour`."""
    why: str


def kind_of(setting: str) -> Kind:
    """Return the kind of key that one of the twelve settings is about.

    Raises:
        KeyError: It is none of them.
    """
    for kind, pair in _PAIRS.items():
        if setting in (pair.validity, pair.window):
            return kind
    raise KeyError(setting)


def parse_setting(name: str, text: str) -> int:
    """Read the value of one of the twelve settings.

    Args:
        name: The setting, as in `SETTINGS`.
        text: A whole number, in decimal digits.

    Raises:
        MalformedError: Unknown, not a number, or out of range; it says what is allowed.
    """
    if name not in SETTINGS:
        raise MalformedError(f"no rotation setting {name[:80]!r}")
    unit, most = ("hours", MAX_HOURS) if name in _WINDOWS else ("days", MAX_DAYS)
    if text.isascii() and text.isdecimal() and len(text) <= len(str(most)):
        number = int(text)
        if 1 <= number <= most:
            return number
    raise MalformedError(f"{name} is a whole number of {unit} from 1 to {most}, got {text[:40]!r}")


def policies(settings: Mapping[str, int]) -> tuple[dict[Kind, Policy], list[Raise]]:
    """Derive the policy of each kind, and what the rules had to raise for it.

    Args:
        settings: Values by name, as `parse_setting` returns them; defaults for missing names.
            Names that are not of the twelve are ignored.
    """
    raises: list[Raise] = []
    asked = {kind: _asked(pair, settings) for kind, pair in _PAIRS.items()}
    client = _above_window(Kind.CLIENT_TLS, asked[Kind.CLIENT_TLS], raises)
    asked[Kind.CLIENT_CA] = _above_clients(asked[Kind.CLIENT_CA], client, raises)
    found = {
        kind: client if kind is Kind.CLIENT_TLS else _above_window(kind, policy, raises)
        for kind, policy in asked.items()
    }
    return found, raises


def for_clients(policies: Mapping[Kind, Policy]) -> dict[str, str]:
    """Return what clients are told of the policies in force (J1)."""
    return {CLIENT_WINDOW: str(policies[Kind.CLIENT_TLS].window // HOUR)}


def _asked(pair: _Pair, settings: Mapping[str, int]) -> Policy:
    return Policy(
        timedelta(days=settings.get(pair.validity, pair.days)),
        timedelta(hours=settings.get(pair.window, pair.hours)),
    )


def _above_window(kind: Kind, policy: Policy, raises: list[Raise]) -> Policy:
    least = policy.window + HOUR
    if policy.validity >= least:
        return policy
    why = "a validity exceeds its renewal window by at least an hour"
    raises.append(Raise(_PAIRS[kind].validity, _days(policy.validity), _days(least), why))
    return Policy(least, policy.window)


def _above_clients(ca: Policy, client: Policy, raises: list[Raise]) -> Policy:
    if ca.window >= client.validity:
        return ca
    why = "a client CA is renewed before it could only sign shorter client certificates"
    window = _PAIRS[Kind.CLIENT_CA].window
    raises.append(Raise(window, _hours(ca.window), _hours(client.validity), why))
    return Policy(ca.validity, client.validity)


def _days(duration: timedelta) -> str:
    """A duration in the unit of a setting that is named in days, and what is left of a day."""
    days, rest = divmod(duration, timedelta(days=1))
    return " ".join(filter(None, (_counted(days, "day"), _hours(rest) if rest else "")))


def _hours(duration: timedelta) -> str:
    return _counted(duration // HOUR, "hour")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s" if number else ""


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate in use, as far as its renewal depends on it."""

    kind: Kind
    not_before: datetime
    not_after: datetime
    serial: int
    root: KeyId
    """The root at the end of its chain."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before this date."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Obtain:
    """Get a new certificate now."""

    reason: str
    """For the log: `first`, `expired`, `clock`, `older root` or `window`."""


def renewal_time(
    not_after: datetime,
    window: timedelta,
    holder_id: bytes,
    serial: int,
    *,
    spread: bool,
) -> datetime:
    """Return the date of a certificate's renewal (B13).

    Args:
        not_after: Its end.
        window: The renewal window of its kind.
        holder_id: Id of the component that holds it.
        serial: Its serial number, positive.
        spread: Whether the date is drawn, in [end - window, end - window / 2], or is
            exactly end - window.
    """
    opens = not_after - window
    return opens + window / 2 * _fraction(holder_id, serial) if spread else opens


def _fraction(holder_id: bytes, serial: int) -> float:
    """Uniform in [0, 1), the same for the same certificate for ever."""
    number = serial.to_bytes((serial.bit_length() + 7) // 8 or 1)
    digest = hashlib.sha256(holder_id + number).digest()
    # 53 bits: as many as a float holds, so that it never rounds up to 1.
    return (int.from_bytes(digest[:8]) >> 11) / (1 << 53)


def next_step(
    current: Held | None,
    *,
    policy: Policy,
    now: datetime,
    newest_root: KeyId,
    holder_id: bytes,
    not_before: datetime | None = None,
) -> Wait | Obtain:
    """Say what to do about one kind of key: get a certificate now, or wait until a date.

    1. none       obtain.
    2. expired    obtain: its holder is shut out, whatever the schedule says. So is the holder of
                  one that is not valid yet: it was issued while a clock was ahead.
    3. root       under another root than the newest: obtain, at `not_before` if that is given
                  and earlier than the ordinary date.
    4. window     obtain when the renewal date has come, but not within an hour of the issue.

    Args:
        current: The certificate in use.
        policy: Of its kind, as it is now: a change acts on certificates already issued.
        now: Policy time.
        newest_root: The root that new certificates come from.
        holder_id: Id of the component, which draws the date.
        not_before: Date of the renewal after a rotation, drawn by the caller (B13).
    """
    if current is None:
        return Obtain("first")
    if now >= current.not_after:
        return Obtain("expired")
    if now < current.not_before:
        return Obtain("clock")
    due = _scheduled(current, policy, holder_id)
    if current.root != newest_root:
        moved = now if not_before is None else not_before
        if moved <= now:
            return Obtain("older root")
        due = min(due, moved)
    return Obtain("window") if due <= now else Wait(due)


def _scheduled(current: Held, policy: Policy, holder_id: bytes) -> datetime:
    issued = current.not_before + BACKDATE
    date = renewal_time(
        current.not_after,
        policy.window,
        holder_id,
        current.serial,
        spread=current.kind is not Kind.CLIENT_CA,
    )
    # Never after the end: an expired certificate is renewed whenever it was issued.
    return min(max(date, issued + HOUR), current.not_after)


def root_age_warning(
    created: datetime, now: datetime, limit: timedelta = ROOT_AGE_LIMIT
) -> str | None:
    """Return the warning that the newest root is old, or `None` (B16)."""
    age = now - created
    if age <= limit:
        return None
    return f"newest root is {age.days} days old, more than {limit.days}: create a new one"


def too_soon(
    last_created: datetime, now: datetime, limit: timedelta = ROOT_YOUTH_LIMIT
) -> str | None:
    """Return why another root should be confirmed now, or `None` (B16)."""
    age = now - last_created
    if age >= limit:
        return None
    return (
        f"newest root is {age.days} days old: with less than {limit.days} days between two "
        f"roots, components that are away for long have more of them to follow"
    )

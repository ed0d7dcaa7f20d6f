"""The deployment's settings: what is in force, and what a change of one brings about (B8, J1).

Values live in the store; this room keeps the ones in force in memory, because each issue of a
certificate asks. A change is recorded with who made it, then in force, then told to whoever
must act on it; nothing restarts. The twelve keep the exact names that policies and scripts know.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from agents.server.errors import OperationError
from agents.server.store import Store
from agents.server.store import settings as table
from agents.server.store.settings import Setting, SettingType, ValueType
from pki import rotation
from pki.certificates import Kind
from pki.errors import MalformedError
from pki.rotation import CLIENT_WINDOW, Policy, Raise

__all__ = ["ROOT_AGE_WARNING", "ROOT_INTERVAL", "Settings"]

ROOT_AGE_WARNING = "root_age_warning_days"
ROOT_INTERVAL = "root_rotation_interval_days"

DAYS = {
    ROOT_AGE_WARNING: rotation.ROOT_AGE_LIMIT.days,
    ROOT_INTERVAL: rotation.ROOT_YOUTH_LIMIT.days,
}
"""Our own settings, in days (B16)."""
MAX_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Effective:
    """The policies in force, and what was raised to get them."""

    policies: Mapping[Kind, Policy]
    raises: tuple[Raise, ...]


class Settings:
    """The settings of one deployment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._set: dict[str, Setting] = {}
        self._effective = _effective({})
        self.revision = 0
        self.changed: list[Callable[[], None]] = []
        """Called after each change that is in force."""

    async def load(self) -> None:
        """Read what was set."""
        self._set = dict(await self._store.read(table.every))
        self.revision = await self._store.read(table.revision)
        self._effective = _effective(self.values())

    def values(self) -> dict[str, int]:
        """The twelve, as set or by default."""
        return {
            name: int(self._set[name].value) if name in self._set else default
            for name, default in rotation.SETTINGS.items()
        }

    def policies(self) -> Mapping[Kind, Policy]:
        """The rotation policy of each kind, after the rules."""
        return self._effective.policies

    @property
    def raises(self) -> tuple[Raise, ...]:
        """Every value that a rule has raised."""
        return self._effective.raises

    def days(self, name: str) -> int:
        """One of our own settings."""
        return int(self._set[name].value) if name in self._set else DAYS[name]

    def shared(self) -> dict[str, str]:
        """What hubs and zone servers are told."""
        return {name: str(value) for name, value in self.values().items()}

    def for_clients(self) -> dict[str, str]:
        """What clients are told (J1)."""
        return rotation.for_clients(self.policies())

    def rows(self) -> list[dict[str, object]]:
        """Every setting, for lists."""
        raised = {one.setting: one for one in self.raises}
        defaults = {**rotation.SETTINGS, **DAYS}
        return [self._row(name, default, raised.get(name)) for name, default in defaults.items()]

    async def set(self, name: str, value: str, *, actor: str, at: datetime) -> list[Raise]:
        """Change a setting; returns what the rules raise because of it.

        Raises:
            OperationError: an unknown name, or a value out of range.
        """
        number = _checked(name, value)
        setting = await self._store.write(
            lambda connection: table.put(
                connection,
                name=name,
                value=str(number),
                setting_type=_type(name),
                value_type=ValueType.NUMERIC,
                actor=actor,
                at=at,
            )
        )
        before = set(self.raises)
        self._set[name] = setting
        self.revision = setting.revision
        self._effective = _effective(self.values())
        for call in self.changed:
            call()
        return [one for one in self.raises if one not in before]

    def _row(self, name: str, default: int, raised: Raise | None) -> dict[str, object]:
        held = self._set.get(name)
        value = default if held is None else int(held.value)
        return {
            "name": name,
            "value": value,
            "default": default,
            "type": _type(name).value,
            "value_type": ValueType.NUMERIC.value,
            "changed_by": None if held is None else held.changed_by,
            "changed_at": None if held is None else held.changed_at.isoformat(),
            "effective": value if raised is None else raised.effective,
            "note": "" if raised is None else raised.why,
        }


def _type(name: str) -> SettingType:
    return SettingType.CLIENT if name == CLIENT_WINDOW else SettingType.SERVER


def _effective(values: Mapping[str, int]) -> Effective:
    policies, raises = rotation.policies({**rotation.SETTINGS, **values})
    return Effective(policies, tuple(raises))


def _checked(name: str, value: str) -> int:
    try:
        if name in rotation.SETTINGS:
            return rotation.parse_setting(name, value)
    except MalformedError as exc:
        raise OperationError("bad-input", str(exc)) from exc
    if name not in DAYS:
        raise OperationError(
            "not-found", f"no setting {name!r:.80}", "see: anchorline settings list"
        )
    fits = value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_DAYS))
    if not fits or not 1 <= int(value) <= MAX_DAYS:
        raise OperationError(
            "bad-input", f"{name} is a number of days from 1 to {MAX_DAYS}, got {value!r:.40}"
        )
    return int(value)

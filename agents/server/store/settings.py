"""Settings that were changed from their defaults, each with who changed it and when (J1).

Only what was set is here: defaults, ranges and effects belong to those who read a setting.
Every change has a revision, one more than the last of any setting, so a component that
knows a revision knows whether it is behind. A change is a line in the activity log, written
in the same transaction. A Protected value is nowhere shown (C3): not in the log, not in a
`repr`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, RowMapping, delete, func, insert, select

from agents.server.store import audit
from agents.server.store.schema import setting as table

__all__ = ["PROTECTED", "Setting", "SettingType", "ValueType", "every", "get", "put", "revision"]

PROTECTED: Final = "(protected)"
"""What is shown instead of a Protected value."""


class SettingType(StrEnum):
    """Where a setting takes effect."""

    LOCAL = "Local"
    SERVER = "Server"
    CLIENT = "Client"


class ValueType(StrEnum):
    """What a setting's text means."""

    TEXT = "Text"
    NUMERIC = "Numeric"
    PROTECTED = "Protected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting as it was last set."""

    name: str
    value: str = field(repr=False)
    """As text, whatever its value type; use `shown` for people."""
    setting_type: SettingType
    value_type: ValueType
    changed_by: str
    changed_at: datetime
    revision: int

    @property
    def shown(self) -> str:
        """The value as people may see it."""
        return _shown(self.value, self.value_type)


def put(
    connection: Connection,
    *,
    name: str,
    value: str,
    setting_type: SettingType,
    value_type: ValueType,
    actor: str,
    at: datetime,
    reason: str = "",
) -> Setting:
    """Set a setting; one that has this value and types already is left as it is.

    Raises:
        ValueError: a Numeric value that is no whole number.
    """
    if value_type is ValueType.NUMERIC and not value.removeprefix("-").isdecimal():
        raise ValueError(f"{name} is numeric, got {value!r:.60}")
    old = get(connection, name)
    if old and (old.value, old.setting_type, old.value_type) == (value, setting_type, value_type):
        return old
    new = Setting(
        name=name,
        value=value,
        setting_type=setting_type,
        value_type=value_type,
        changed_by=actor,
        changed_at=at.replace(microsecond=0),
        revision=revision(connection) + 1,
    )
    connection.execute(delete(table).where(table.c.name == name))
    connection.execute(
        insert(table).values(
            name=name,
            value=value,
            setting_type=setting_type.value,
            value_type=value_type.value,
            changed_by=actor,
            changed_at=at,
            revision=new.revision,
        )
    )
    details = {"from": None if old is None else old.shown, "to": new.shown}
    act = audit.Act(
        at=at, actor=actor, action="setting.set", subject=name, reason=reason, details=details
    )
    audit.append(connection, act)
    return new


def get(connection: Connection, name: str) -> Setting | None:
    """A setting by its name; None: never set, its default holds."""
    row = connection.execute(select(table).where(table.c.name == name)).mappings().first()
    return None if row is None else _setting(row)


def every(connection: Connection) -> dict[str, Setting]:
    """Every setting that was set, by name, in the order of names."""
    rows = connection.execute(select(table).order_by(table.c.name)).mappings()
    return {row["name"]: _setting(row) for row in rows}


def revision(connection: Connection) -> int:
    """The revision of the last change; 0 before the first."""
    return int(connection.execute(select(func.max(table.c.revision))).scalar() or 0)


def _shown(value: str, value_type: ValueType) -> str:
    return PROTECTED if value_type is ValueType.PROTECTED else value


def _setting(row: RowMapping) -> Setting:
    return Setting(
        name=row["name"],
        value=row["value"],
        setting_type=SettingType(row["setting_type"]),
        value_type=ValueType(row["value_type"]),
        changed_by=row["changed_by"],
        changed_at=row["changed_at"],
        revision=row["revision"],
    )

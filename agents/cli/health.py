"""How a component is, in one word.

    down      nobody holds its state directory
    starting  somebody does, and has no certificate yet (a hub waits here for its approval)
    expired   a certificate in use is over, so nobody talks to it
    behind    a key is still under another root than the newest it knows
    ok        none of these

The first that is true counts. `judge` is pure.
"""

from datetime import datetime
from enum import StrEnum
from pathlib import Path

from agents.cli.state import Report, read_report
from agents.runtime.errors import AgentError

__all__ = ["Health", "examine", "judge"]


class Health(StrEnum):
    """One word, and an exit code that a supervisor can tell apart."""

    OK = "ok"
    DOWN = "down"
    STARTING = "starting"
    BEHIND = "behind"
    EXPIRED = "expired"

    @property
    def code(self) -> int:
        """The exit code; 2 and 3 stay those of a wrong command line and a refusal."""
        return _CODES[self]


_CODES = {
    Health.OK: 0,
    Health.DOWN: 1,
    Health.STARTING: 4,
    Health.BEHIND: 5,
    Health.EXPIRED: 6,
}


def examine(folder: Path, role: str, now: datetime) -> tuple[Health, str]:
    """Look at a state directory.

    Raises:
        AgentError: It cannot be read, or is that of another role.
    """
    report = read_report(folder)
    found = report.written.get("role") if report.written is not None else role
    if found != role:
        raise AgentError(f"{folder} is the state of a {found!s:.20}, not of a {role}")
    return judge(report, now)


def judge(report: Report, now: datetime) -> tuple[Health, str]:
    """Return the word, and why, for people."""
    if report.pid is None:
        return Health.DOWN, "no process uses its state directory"
    written = report.written
    if written is None or written.get("pid") != report.pid:
        return Health.STARTING, f"process {report.pid} has not reported yet"
    try:
        keys = [
            (key["kind"], key["root"], datetime.fromisoformat(key["not_after"]))
            for key in written["keys"]
        ]
        # A lab's policy time is ahead of this process's clock.
        now = max(now, datetime.fromisoformat(written["time"]))
        newest = written["newest_root"]
    except (KeyError, TypeError, ValueError) as exc:
        raise AgentError("the report of the component is of another version") from exc
    if not keys:
        return Health.STARTING, "it has no certificate yet"
    for kind, _, end in keys:
        if end <= now:
            return Health.EXPIRED, f"its {kind} certificate expired at {end.isoformat()}"
    old = [kind for kind, root, _ in keys if root != newest]
    if old:
        return Health.BEHIND, f"not under the newest root yet: {', '.join(old)}"
    return Health.OK, ""

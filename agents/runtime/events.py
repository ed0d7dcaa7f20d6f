"""The vocabulary of the logs: every event that any program emits, and every field.

To add an event: emit it (`log.info("noun.verb", field=...)`), add it to `EVENTS` in the order
of the alphabet, add fields that are new to `FIELDS`, and run

    python -m agents.runtime.events > docs/logging.md

A test reads the calls in the source and fails for an event or a field that is not here, and
for an event here that nothing emits. Fields bound to a logger (`log.bind(link=...)`) belong to
each event that is logged with it; they need an entry in `FIELDS` only.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["EVENTS", "FIELDS", "Event", "render_page"]


@dataclass(frozen=True, slots=True, init=False)
class Event:
    """One kind of line."""

    doc: str
    """What happened, and what to do about it where something is to be done."""
    fields: tuple[str, ...]
    """The fields that its calls give, besides the common and the bound ones."""

    def __init__(self, doc: str, *fields: str) -> None:
        object.__setattr__(self, "doc", doc)
        object.__setattr__(self, "fields", fields)


FIELDS: Mapping[str, str] = MappingProxyType(
    {
        # Every line.
        "ts": "policy time, UTC, milliseconds",
        "level": "`debug`, `info`, `warning` or `error`",
        "event": "the name of the event",
        "role": "the program: `server`, `hub`, `zone-server`, `client`, `lab`",
        "id": "the component's id: 32 hex digits, empty before it has one",
        "lost": "lines before this one that could not be written",
        "traceback": "where in our program an unexpected exception came from",
        # Those of some events, or bound to a logger.
        "by_peer": "whether the other side said so",
        "code": "the close code, as a name",
        "expected": "who or what should have been there",
        "fingerprint": "fingerprint of a key: the hex digits of its KeyID; `-` if none was shown",
        "got": "what was there instead",
        "kind": "which link, or which certificate",
        "link": "number of the connection, on each of its lines",
        "link_class": "`discovery`, `enrolment` or `member`",
        "peer": "who is at the other end of the link",
        "problem": "what is wrong, in words",
        "reason": "why, in words or as a name",
        "remedy": "what to do about it",
        "remote": "address and port of the other end",
        "trace": "the trace id of the message that this belongs to, the same on every component",
        "type": "the kind of message",
        "version": "version of the program",
    }
)

EVENTS: Mapping[str, Event] = MappingProxyType(
    {
        "answer.unsendable": Event(
            "The answer to a request could not be sent, and the link was closed: a fault of ours.",
            *("problem", "trace", "type"),
        ),
        "daemon.failed": Event("The program ends because of an error.", "problem"),
        "daemon.reload_refused": Event(
            "A reload was asked for and refused; what was in use stays in use.", "problem"
        ),
        "daemon.reloaded": Event("The configuration was read again and is in use."),
        "daemon.started": Event("The program is ready for work.", "version"),
        "daemon.stopping": Event("The program was asked to stop, and does.", "reason"),
        "handler.failed": Event(
            "A request was not answered because of a fault of ours; the peer was told so.",
            *("trace", "type"),
        ),
        "link.abandoned": Event(
            "A connection ended before it was a link, and nobody was refused.",
            *("kind", "link", "reason", "remote", "trace"),
        ),
        "link.closed": Event(
            "A link that was open has ended.",
            *("by_peer", "code", "kind", "link_class", "reason", "remote", "trace"),
        ),
        "link.opened": Event(
            "A link is open.",
            *("kind", "link_class", "remote", "trace"),
        ),
        "link.refused": Event(
            "A connection was refused, by us or by the other side; `remedy` says what to do.",
            *("by_peer", "expected", "fingerprint", "got", "kind", "link", "reason", "remedy"),
            *("remote", "trace"),
        ),
        "message.in": Event("A message came.", "trace", "type"),
        "message.out": Event("A message was sent.", "trace", "type"),
        "task.failed": Event("Work beside the rest ended because of a fault of ours."),
        "task.unavailable": Event("Work beside the rest was given up for now.", "reason"),
    }
)


def render_page() -> str:
    """Return `docs/logging.md`."""
    lines = [
        "# Logs",
        "",
        "Each program writes one JSON object a line, to standard error or to a file. On a terminal",
        "the same lines are rendered for people; `anchorline logs` renders files. Event names are",
        "stable: scripts may rely on them. Secrets are never logged.",
        "",
        "This page is made from `agents/runtime/events.py`:",
        "`python -m agents.runtime.events > docs/logging.md`.",
        "",
        "## Events",
        "",
        "| event | fields | meaning |",
        "| --- | --- | --- |",
    ]
    for name in sorted(EVENTS):
        event = EVENTS[name]
        fields = ", ".join(f"`{field}`" for field in event.fields)
        lines.append(f"| `{name}` | {fields} | {event.doc} |")
    lines += ["", "## Fields", "", "| field | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {FIELDS[name]} |" for name in FIELDS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_page())

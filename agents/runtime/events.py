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
        "actor": "who asked for it: a Unix user of the server's machine",
        "address": "where it says that it listens",
        "backward": "id of the backward neighbour",
        "by_peer": "whether the other side said so",
        "client": "id of a client",
        "code": "the close code, as a name",
        "count": "how many",
        "deployment": "id of the deployment, 32 hex digits",
        "deployment_fingerprint": "fingerprint of the deployment, as `bundle export` shows it",
        "entry_id": "id of a ledger entry",
        "expected": "who or what should have been there",
        "failures": "attempts in a row that failed",
        "fingerprint": "fingerprint of a key: the hex digits of its KeyID; `-` if none was shown",
        "forward": "id of the forward neighbour",
        "got": "what was there instead",
        "hint": "what an operator can do about it; empty where nothing is certain",
        "holder": "id of the component that a certificate is for, or whose rows they are",
        "host": "host name, as its owner says",
        "issuer": "KeyID of the key that signed",
        "kind": "which link, or which certificate",
        "leader": "whether it is an end of its chain",
        "link": "number of the connection, on each of its lines",
        "link_class": "`discovery`, `enrolment` or `member`",
        "method": "method of a request",
        "n": "number of a ledger entry",
        "name": "name of a root or a setting",
        "newest_root": "KeyID of the newest root",
        "not_after": "end of a certificate",
        "old": "id before the change",
        "path": "path of a request or a file",
        "peer": "who is at the other end of the link",
        "peer_role": "role of the other component",
        "problem": "what is wrong, in words",
        "reason": "why, in words or as a name",
        "remedy": "what to do about it",
        "remote": "address and port of the other end",
        "reporter": "id of the client that says so",
        "revision": "number of a plan or of settings, never going back",
        "root": "KeyID of the root at the end of a chain",
        "roots": "how many roots are trusted",
        "side": "`forward` or `backward`: where in the line the neighbour stands",
        "source": "where it was heard: a link, a file, or ourselves",
        "spki": "an identity key, DER in hex",
        "state": "state of a request",
        "trace": "the trace id of the message that this belongs to, the same on every component",
        "type": "the kind of message",
        "uid": "user id of a process of this machine",
        "value": "value of a setting",
        "version": "version of the program",
    }
)

EVENTS: Mapping[str, Event] = MappingProxyType(
    {
        "acknowledgement.waiting": Event(
            "How far this component has followed is not taken yet; it is said again until it is.",
            "reason",
        ),
        "answer.refused": Event(
            "A responder answered as no honest one does; nothing of it was taken.",
            *("expected", "fingerprint", "kind", "reason", "remedy", "remote", "type"),
        ),
        "answer.unsendable": Event(
            "The answer to a request could not be sent, and the link was closed: a fault of ours.",
            "problem",
            "trace",
            "type",
        ),
        "api.failed": Event(
            "A request to the administration API failed because of a fault of ours.",
            *("actor", "method", "path"),
        ),
        "api.refused": Event(
            "A user of this machine who may not administer the server has tried to.", "uid"
        ),
        "approval.decided": Event(
            "An administrator has approved, denied or revoked a hub or zone server.",
            "actor",
            "fingerprint",
            "reason",
            "state",
        ),
        "approval.pending": Event(
            "A hub or zone server asks for the first time: compare its fingerprint, then decide.",
            "fingerprint",
            "host",
            "peer_role",
            "remote",
        ),
        "bundle.exported": Event(
            "An administrator was handed an init bundle; `count` were handed out by now.",
            "actor",
            "count",
            "deployment_fingerprint",
        ),
        "bundle.imported": Event(
            "A first start took its trust from an init bundle.",
            "deployment",
            "deployment_fingerprint",
            "source",
        ),
        "bundle.refused": Event(
            "The init bundle cannot be used; work goes on with the ledger that is there.",
            "hint",
            "reason",
            "source",
        ),
        "callback.failed": Event(
            "A callback of the event loop failed because of a fault of ours; work goes on.",
            "problem",
        ),
        "certificate.issued": Event(
            "A certificate was signed, and is on record.",
            "fingerprint",
            "holder",
            "issuer",
            "kind",
            "not_after",
            "root",
        ),
        "chain.placed": Event(
            "This client's neighbours are others than before.",
            "backward",
            "forward",
            "leader",
            "revision",
        ),
        "client.cloned": Event(
            "Two machines register with one identity; this one was told to make its own. Where no "
            "`identity.renewed` follows, a registration was only very late.",
            *("client", "host", "remote"),
        ),
        "client.lost": Event(
            "A neighbour reports a client unreachable; its chain goes on without it.",
            "client",
            "host",
            "reporter",
        ),
        "client.registered": Event(
            "A client registered here for the first time.", "address", "client", "host", "remote"
        ),
        "client.silent": Event(
            "A client has not registered for three of its intervals; its chain goes on without it.",
            "client",
            "host",
        ),
        "daemon.failed": Event("The program ends because of an error.", "problem"),
        "daemon.reload_refused": Event(
            "A reload was asked for and refused; what was in use stays in use.", "problem"
        ),
        "daemon.reloaded": Event("The configuration was read again and is in use."),
        "daemon.started": Event("The program is ready for work.", "version"),
        "daemon.stopping": Event("The program was asked to stop, and does.", "reason"),
        "denied.crowded": Event(
            "More keys are to be denied than a HEAD can name: make a new root and revoke the old.",
            "reason",
        ),
        "deployment.founded": Event(
            "The first start of a server made a root and a ledger.",
            "deployment",
            "deployment_fingerprint",
            "fingerprint",
            "name",
        ),
        "enrolment.refused": Event(
            "A request for a certificate was refused; `remedy` says what to do.",
            *("expected", "fingerprint", "host", "kind", "link", "reason", "remedy", "remote"),
        ),
        "enrolment.waiting": Event(
            "This component has asked for its certificate and does not have it yet.",
            "hint",
            "reason",
        ),
        "handler.failed": Event(
            "A request was not answered because of a fault of ours; the peer was told so.",
            "trace",
            "type",
        ),
        "head.unsigned": Event(
            "The HEAD of this hour could not be kept, so none was signed; it is tried again.",
            "hint",
            "reason",
        ),
        "identity.renewed": Event(
            "This machine was a copy of another: it has made itself an identity of its own.",
            "fingerprint",
            "old",
        ),
        "key.activated": Event(
            "A new certificate is in use.", "fingerprint", "kind", "not_after", "reason", "root"
        ),
        "key.renewal_failed": Event(
            "A certificate could not be renewed now; it is tried again.",
            "hint",
            "kind",
            "reason",
        ),
        "ledger.followed": Event(
            "The ledger has grown, and what is trusted with it.",
            "entry_id",
            "n",
            "newest_root",
            "roots",
            "source",
        ),
        "ledger.forked": Event(
            "Security: two signed histories that cannot both be true; the evidence is kept.",
            *("n", "reason", "remedy", "source"),
        ),
        "ledger.refused": Event(
            "What a source offered as ledger was refused; nothing changed.",
            *("expected", "reason", "remedy", "source"),
        ),
        "ledger.torn": Event(
            "One of the two files of the ledger is damaged; the other one is used.",
            *("reason", "remedy", "source"),
        ),
        "ledger.unreachable": Event(
            "A source announced news and could not be asked for it; asked again on its link.",
            "reason",
            "source",
        ),
        "ledger.unwritable": Event(
            "News of the ledger could not be kept, so what was known stays in force; tried again.",
            *("reason", "remedy"),
        ),
        "link.abandoned": Event(
            "A connection ended before it was a link, and nobody was refused.",
            "kind",
            "link",
            "reason",
            "remote",
            "trace",
        ),
        "link.closed": Event(
            "A link that was open has ended; a warning with `remedy` if for what its peer did.",
            *("by_peer", "code", "expected", "fingerprint", "kind", "link", "link_class", "peer"),
            *("reason", "remedy", "remote", "trace"),
        ),
        "link.opened": Event(
            "A link is open.", "kind", "link", "link_class", "peer", "remote", "trace"
        ),
        "link.refused": Event(
            "A connection was refused, by us or by the other side; `remedy` says what to do.",
            "by_peer",
            "expected",
            "fingerprint",
            "got",
            "kind",
            "link",
            "reason",
            "remedy",
            "remote",
            "trace",
        ),
        "listener.paused": Event(
            "The system has no room for a connection: nobody is accepted for a second.",
            *("kind", "reason", "remedy"),
        ),
        "message.in": Event("A message came.", "trace", "type"),
        "message.out": Event("A message was sent.", "trace", "type"),
        "neighbour.linked": Event(
            "A link to a neighbour stands: it took us, or we took it.", "link", "peer", "side"
        ),
        "neighbour.unreachable": Event(
            "The forward neighbour cannot be reached.", "failures", "peer", "reason"
        ),
        "records.compaction_failed": Event(
            "The log of a zone server could not be written anew; it grows until it can be.",
            "reason",
            "remedy",
        ),
        "registration.failed": Event(
            "This client could not register now; it is tried again.", "hint", "reason"
        ),
        "report.crowded": Event(
            "A zone server reports more clients than it may have; the rest is left out.",
            "holder",
            "reason",
        ),
        "report.dropped": Event(
            "The server refuses what a report says of a client, for good; it is not told again.",
            "client",
            "reason",
        ),
        "report.failed": Event(
            "A report to the server did not arrive; it is sent again.", "reason"
        ),
        "report.refused": Event(
            "A zone server's report holds an acknowledgement that is not its to tell.",
            "reason",
            "spki",
        ),
        "request.refused": Event(
            "A peer that has proven who it is spoke for somebody else, or as no honest one does.",
            *("expected", "fingerprint", "kind", "link", "reason", "remedy", "remote", "trace"),
            "type",
        ),
        "root.created": Event("A new root is the newest.", "actor", "fingerprint", "name"),
        "root.key_missing": Event(
            "The newest root's private half is missing: restore the newest backup.", "fingerprint"
        ),
        "root.old": Event(
            "The newest root is older than it should be: create a new one.", "reason"
        ),
        "root.revoked": Event(
            "A root was revoked, and its private half destroyed.",
            *("actor", "fingerprint", "name", "reason"),
        ),
        "setting.changed": Event(
            "A setting was changed and is in force.", "actor", "name", "value"
        ),
        "settings.told": Event("The server has told the settings in force.", "revision"),
        "standby.incomplete": Event(
            "Promised roots have no standby key: when the first one is due, no root can be made.",
            "count",
            "fingerprint",
            "remedy",
        ),
        "standby.unreadable": Event(
            "The standby keys do not open: no new root can be made until they are restored.",
            "reason",
            "remedy",
        ),
        "status.unwritable": Event(
            "The status report could not be written; work goes on.", "reason"
        ),
        "task.failed": Event("Work beside the rest ended because of a fault of ours."),
        "task.unavailable": Event("Work beside the rest was given up for now.", "hint", "reason"),
        "uplink.unavailable": Event(
            "The responder cannot be reached, or does not take us yet; it is tried again.",
            "hint",
            "reason",
        ),
        "zone.unavailable": Event(
            "A zone server cannot be reached; tried again, and said again for another reason.",
            "reason",
            "remote",
        ),
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

"""Who looks on, and says what must never be.

At every moment:

    spoken      what a client has on disk of the ledger, the server has on its own; else the
                thief made it, and then it brings no root that the server never committed to
    kept        an entry that the administrator was told of, or that a component acknowledged, is
                on the disk of who said so, after any crash
    on record   a certificate in use is on the record of who issued it, the server's or a zone
                server's, and a loss of power would not take it from there; or the thief signed it
    itself      nobody is taken for a copy of somebody else, and no program fails in a way that
                it does not know

What must be true in the end is in `run`.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from agents.member.keyring import Credential
from agents.responder.records import AckRecord
from agents.runtime import journal
from agents.zone_server.records import _decode
from pki import certificates, encoding
from pki.entries import Entry, Genesis, Revoke, Rotate, decode_entry
from pki.errors import PKIError
from pki.ledger import Chain
from pki.state import DIGEST_BYTES, MAGIC, MAX_STATE
from tests.simulation.machine import Machine, current
from tests.simulation.network import Network
from tests.simulation.store import Database
from tests.simulation.thief import Thief

__all__ = ["Watch"]

RECORDS = "records.log"
EXPECTED = ("cannot write", "cannot commit", "cannot append", "cannot sync", "cannot cut")
"""What injected errors say."""


class Watch:
    """Keeps the trace, and the list of what was broken."""

    def __init__(self, network: Network, thief: Thief, database: Database) -> None:
        self.trace: list[str] = []
        self.broken: list[str] = []
        self.server: Machine | None = None
        self.machines: list[Machine] = []
        self.zones: list[Machine] = []
        self.handed: dict[bytes, set[int]] = {}
        """By zone server's id: serial numbers that it has issued, and that somebody uses."""
        self.kept: set[bytes] = set()
        """Ids of entries that the server must never lose again."""
        self._had: defaultdict[str, set[bytes]] = defaultdict(set)
        """By name of a machine: ids of the entries that were ever on its disk."""
        self._read: dict[Machine, tuple[bytes | None, set[int]]] = {}
        """What was last found on a zone server's record, and what it was found in."""
        self._ids: dict[Machine, bytes] = {}
        self._loop = network.loop
        self._network = network
        self._thief = thief
        self._database = database
        self._known: dict[bytes, Entry] = {}
        self._durable: set[bytes] = set()
        self._committed: set[bytes] = set()

    def note(self, who: str, what: str) -> None:
        """Put a line into the trace."""
        self.trace.append(f"{self._loop.now:9.3f}  {who:9}  {what}")

    def fail(self, who: str, what: str) -> None:
        """Put something into the list of what was broken."""
        self.note(who, f"BROKEN: {what}")
        self.broken.append(f"{who} {what}")

    # --- told by the world

    def disk_changed(self, name: str, path: Path) -> None:
        """A file was changed, or was to be."""
        machine = next((one for one in self.machines if one.name == name), None)
        if machine is None or not path.name.startswith("ledger."):
            return
        entries = self.on_disk(machine)
        self._had[name].update(entry.id for entry in entries)
        if machine is self.server:
            self._server_wrote(entries)
        else:
            self._client_wrote(name, entries)

    def promised(self, chain: Chain) -> None:
        """The administrator was told that this is done."""
        self.kept.update(entry.id for entry in chain.entries)
        self.check_kept()

    def acknowledged(self, ack: AckRecord) -> None:
        """The server has an acknowledgement in hand, whose signature is good."""
        for machine in self.machines:
            if machine is self.server or self.id_of(machine) != ack.component:
                continue
            # Not "has": between its word and this one a better chain may have superseded it.
            if ack.entry_id not in self._had[machine.name]:
                self.fail(machine.name, f"acknowledged entry {ack.n} and had it not on its disk")

    def activated(self, credential: Credential) -> None:
        """A key was put into use."""
        program = current.get()
        serial = credential.leaf.serial
        if program is None or serial in self._thief.minted:
            return
        if self.zone_of(credential) is not None:
            self.handed.setdefault(credential.issuer_id or b"", set()).add(serial)
        if not self.is_recorded(credential):
            self.fail(program.machine.name, f"uses a {credential.kind} that is on no record")

    def logged(self, record: dict[str, object]) -> None:
        """A program wrote a line."""
        program = current.get()
        who = program.machine.name if program is not None else "thief"
        event = record["event"]
        if record["level"] != "debug":
            self.note(who, f"{event} {_words(record)}")
        if program is None or not program.alive:
            return
        # What comes late by a round is named like a copy, and nobody waits for the answer.
        late = event == "client.cloned" and self._network.is_late(str(record["remote"]))
        if event in ("client.cloned", "identity.renewed") and not late:
            self.fail(who, f"takes an honest client for a copy ({event})")
        trace = str(record.get("traceback", ""))
        if trace and not any(text in trace for text in EXPECTED):
            self.fail(who, f"fails in a way that it does not know ({event}): {trace}")

    # --- what is on disks

    def zone_of(self, credential: Credential) -> Machine | None:
        """The zone server that has issued this certificate, if one has."""
        issuer = credential.issuer_id
        return next((z for z in self.zones if issuer is not None and self.id_of(z) == issuer), None)

    def id_of(self, machine: Machine) -> bytes | None:
        """The id of a component that runs, or has run."""
        if machine.part is not None:
            self._ids[machine] = machine.part.member.id
        return self._ids.get(machine)

    def is_recorded(self, credential: Credential) -> bool:
        """Whether who has issued this has it on record."""
        zone, serial = self.zone_of(credential), credential.leaf.serial
        return self._database.has_issued(serial) if zone is None else serial in self._recorded(zone)

    def _recorded(self, zone: Machine) -> set[int]:
        """Serial numbers on a zone server's record that a loss of power would leave there."""
        path = zone.folder / RECORDS
        data = zone.platter.survives(path)
        read, serials = self._read.get(zone, (None, set()))
        if read is data:
            return serials
        salt = data[len(journal._MAGIC) : journal._START]
        kept = [_decode(path, record) for record in journal._read(path, data, salt)[0]]
        serials = {value.serial for kind, value in kept if kind == "issued"}
        self._read[zone] = data, serials
        return serials

    def on_disk(self, machine: Machine) -> list[Entry]:
        """The ledger as its newest whole generation has it; its signatures are not asked."""
        data = machine.platter.ledger(machine.folder)
        if data is None:
            return []
        body = encoding.unpack(data[len(MAGIC) + DIGEST_BYTES :], max_bytes=MAX_STATE)
        try:
            first = encoding.as_list(encoding.as_list(body, what="slots")[0], what="slot")
            entries = encoding.as_list(first[0], what="entries")
            return [self._entry(encoding.as_bytes(raw, what="entry")) for raw in entries]
        except PKIError as exc:
            self.fail(machine.name, f"has a ledger that cannot be read: {exc}")
            return []

    def check_kept(self) -> None:
        """Whether the server still has whatever it has promised."""
        missing = self.kept - self._durable
        if missing:
            self.fail("server", f"has lost {len(missing)} entries that it had promised")

    def _entry(self, raw: bytes) -> Entry:
        entry = self._known.get(raw)
        if entry is None:
            entry = self._known[raw] = decode_entry(raw)
        return entry

    def _server_wrote(self, entries: Iterable[Entry]) -> None:
        self._durable = {entry.id for entry in entries}
        for entry in entries:
            match entry.parse().payload:
                case Genesis(root=root, next=following):
                    self._committed.update(following, [certificates.read(root).key_id])
                case Rotate(more=more):
                    self._committed.add(more)
                case Revoke():
                    pass
        self.check_kept()

    def _client_wrote(self, name: str, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.id in self._durable:
                continue
            payload = entry.parse().payload
            if entry.id not in self._thief.forged:
                self.fail(name, "has an entry on its disk that the server has not on its own")
            elif (
                isinstance(payload, Rotate)
                and certificates.read(payload.root).key_id not in self._committed
            ):
                self.fail(name, "trusts a root that the thief made")


def _words(record: dict[str, object]) -> str:
    left = {"ts", "level", "event", "role", "id", "traceback", "trace"}
    return " ".join(
        f"{name}={str(value)[:90]}" for name, value in record.items() if name not in left
    )

"""A client that dies at each durable write of enrol, catch-up, renew and register, and once more.

The client's life is one function over the product's own rooms: whatever it left, the next start
takes up, and in the end it is an enrolled member under the newest root with the id that its
server knows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from agents.client.memory import Memory, Registration
from agents.member.acknowledgement import Acknowledgement
from agents.member.keyring import Keyring
from agents.member.member import MemberState, open_state
from agents.member.requesting import Standing, request_certificate
from agents.member.trust import Trust
from agents.responder.enrolment import Binding
from agents.responder.service import ack_record
from agents.runtime import logs
from agents.runtime.channel import Channel
from agents.runtime.errors import StateError
from agents.server.app import Server
from pki import certificates
from pki.bundle import make_bundle
from pki.certificates import Kind
from protocol.messages import (
    Ack,
    Done,
    Enrol,
    Message,
    NonceGet,
    Refused,
    Register,
    Registered,
)
from tests.crash.faults import ATOMIC, copy, spread
from tests.support.authority import make_root, revoke_first
from tests.support.clock import FakeClock
from tests.support.components import EXPORTER, peer_of
from tests.support.files import Crash, Failure, MemoryFiles
from tests.support.servers import prepared, shown

STATE = Path("/state")
BUNDLE = Path("/init.dat")
KIND = Kind.CLIENT_TLS


class Line:
    """A link to a server in the same process, which remembers what it was told."""

    def __init__(self, server: Server, keyring: Keyring) -> None:
        self._server = server
        self._keyring = keyring
        self.issued: set[bytes] = set()
        """Ids that hold a certificate."""

    @property
    def channel(self) -> Channel:
        return cast(Channel, self)

    async def request(self, message: Message) -> Message:
        server = self._server
        match message:
            case NonceGet():
                return server.enrolment.nonce(message, "a link")
            case Enrol():
                binding = Binding(frozenset({shown(server)}), EXPORTER, None, "127.0.1.11")
                return await server.enrolment.enrol(message, binding)
            case Register():
                held = self._keyring.credential(KIND)
                assert held is not None
                peer = peer_of(held.chain)
                return await server.registry.register(peer, "127.0.1.11", message)
            case Ack():
                record = ack_record(message, role="client", now=server.clock.now())
                await server.acknowledgements.take(record, server.trust)
                return Done()
            case _:
                raise AssertionError(message)


async def live(files: MemoryFiles, server: Server) -> tuple[Keyring, Trust, Memory]:
    """One run of a client: what it lacks it obtains, in the order of the product."""
    clock, log = server.clock, logs.get_logger()
    keyring = Keyring(STATE / "keys.db", files)
    trust = open_state(MemberState(STATE, files), bundle=BUNDLE, expect=None, clock=clock, log=log)
    slot = trust.slots[0]
    chain = server.authority.chain
    trust.entries(slot, 0, chain.encoded, source="test")
    trust.take_head(server.trust.latest_head() or b"", source="test")
    line = Line(server, keyring)
    held = keyring.credential(KIND)
    if held is None or held.root != trust.newest_root:
        await request_certificate(
            line.channel,
            KIND,
            keyring=keyring,
            trust=trust,
            name=certificates.name_of(trust.deployment, KIND, keyring.id),
            now=clock.now(),
            standing=Standing(shown(server), EXPORTER),
            host="client",
        )
    taken = await Acknowledgement(keyring, trust).send(line.channel, server.member.id)
    assert taken == Done()
    memory = Memory(STATE / "registration.json", files)
    token = bytes.fromhex(memory.last.token)
    answer = await line.request(
        Register(token=token, full=True, host="client", port=1, address="127.0.1.11")
    )
    if isinstance(answer, Refused):
        raise AssertionError(answer)
    assert isinstance(answer, Registered)
    memory.keep(Registration(server.member.id.hex(), answer.token.hex(), answer.settings))
    return keyring, trust, memory


def bundle_of(server: Server) -> bytes:
    chain, head = server.authority.chain, server.trust.latest_head()
    assert head is not None
    return make_bundle(server.authority.issuer().key, [chain], [head])


async def check_follows(files: MemoryFiles, server: Server, id: bytes | None) -> None:
    """A run without faults ends as it should, with the id that was known before, if any."""
    keyring, trust, _ = await live(files, server)
    if id is not None:
        assert keyring.id == id
    assert trust.last(trust.slots[0]) == server.authority.chain.last
    held = keyring.credential(KIND)
    assert held is not None
    assert held.root == server.authority.chain.current_root.key_id
    acks = server.acknowledgements.of(server.authority.slot)
    assert acks[keyring.id].n == server.authority.chain.last.n
    row = server.registry.row(keyring.id)
    assert row is not None
    # And again: nothing is obtained a second time.
    before = files.changes
    await live(files, server)
    assert files.changes == before + 1  # the token of the next registration


async def known_ids(server: Server) -> set[bytes]:
    """Clients that the server has ever answered with a certificate."""
    records = await server.issued.unexpired(server.clock.now())
    return {record.holder for record in records if record.kind == KIND.value}


depths = pytest.mark.parametrize(
    "deep", [False, pytest.param(True, marks=pytest.mark.needs("fuzz"))], ids=["some", "all"]
)


async def killed(files: MemoryFiles, server: Server, change: int, way: Failure) -> bool:
    """A run that dies at that durable write; False if it ends before."""
    files.fail(change, way, crash=True)
    try:
        await live(files, server)
    except Crash:
        return True
    files._failures.clear()
    return False


@depths
@pytest.mark.req("C8", "B6")
@pytest.mark.parametrize("story", ["enrol", "rotated", "revoked"])
async def test_a_client_that_dies_at_each_durable_write_and_in_its_recovery(
    tmp_path: Path, story: str, deep: bool
) -> None:
    clock, base = FakeClock(), MemoryFiles()
    async with prepared(tmp_path, clock=clock) as server:
        base.content[BUNDLE] = bundle_of(server)
        if story != "enrol":
            await live(base, server)
            await make_root(server)
        if story == "revoked":
            await make_root(server)
            await revoke_first(server)
        probe = copy(base)
        await live(probe, server)
        count = probe.changes
        assert count >= (6 if story == "enrol" else 4)
        for first in range(1, count + 1):
            for way in ATOMIC if deep else (ATOMIC[first % 3], Failure.AFTER):
                once = copy(base)
                before = await known_ids(server)
                server.registry._rows.clear()
                assert await killed(once, server, first, way)
                for second, second_way in spread(first, ATOMIC, count, all_=deep):
                    files = copy(once)
                    # Of the other futures, which are copies of this client, it knows nothing.
                    server.registry._rows.clear()
                    await killed(files, server, second, second_way)
                    # Who got a certificate is the same component afterwards.
                    made = await known_ids(server) - before
                    ring = files.content.get(STATE / "keys.db")
                    id = Keyring(STATE / "keys.db", copy(files)).id if ring else None
                    assert id is not None or not made
                    await check_follows(files, server, id)
                    before = await known_ids(server)


@pytest.mark.req("C8")
@pytest.mark.parametrize("name", ["ledger.0", "ledger.1"])
async def test_a_torn_ledger_costs_a_catch_up_and_nothing_else(tmp_path: Path, name: str) -> None:
    clock, base = FakeClock(), MemoryFiles()
    async with prepared(tmp_path, clock=clock) as server:
        base.content[BUNDLE] = bundle_of(server)
        keyring, _, _ = await live(base, server)
        await make_root(server)
        await live(base, server)
        path = STATE / name
        for kept in (0, 20, len(base.content[path]) - 1):
            files = copy(base)
            files.content[path] = base.content[path][:kept]
            again, trust, _ = await live(files, server)
            assert again.id == keyring.id
            assert trust.last(trust.slots[0]) == server.authority.chain.last


@pytest.mark.req("C8")
@pytest.mark.parametrize("names", [["keys.db"], ["keys.key"], ["ledger.0", "ledger.1"]])
async def test_what_cannot_be_read_is_named_and_kept(tmp_path: Path, names: Sequence[str]) -> None:
    async with prepared(tmp_path) as server:
        files = MemoryFiles()
        files.content[BUNDLE] = bundle_of(server)
        await live(files, server)
        await make_root(server)
        await live(files, server)
        for name in names:
            files.content[STATE / name] = files.content[STATE / name][:30]
        torn = dict(files.content)
        with pytest.raises(StateError, match=names[0].split(".")[0]) as caught:
            await live(files, server)
        assert caught.value.hint
        assert files.content == torn


@pytest.mark.req("C8")
async def test_a_full_disk_keeps_the_client_as_it_is(tmp_path: Path) -> None:
    async with prepared(tmp_path) as server:
        files = MemoryFiles()
        files.content[BUNDLE] = bundle_of(server)
        keyring, _, _ = await live(files, server)
        await make_root(server)
        before = dict(files.content)
        for change in range(1, 50):
            files.fail(change, Failure.BEFORE)
        for _ in range(3):
            with pytest.raises(StateError, match="cannot write"):
                await live(files, server)
        assert files.content == before
        files._failures.clear()
        await check_follows(files, server, keyring.id)


async def test_what_was_issued_to_a_dead_client_is_on_record_and_harmless(tmp_path: Path) -> None:
    """The answer of a request can be lost: the next request is for the same key."""
    async with prepared(tmp_path) as server:
        files = MemoryFiles()
        files.content[BUNDLE] = bundle_of(server)
        probe = copy(files)
        await live(probe, server)
        activation = probe.changes - 1  # the last but one: then the registration is kept
        assert await killed(files, server, activation, Failure.BEFORE)
        id = Keyring(STATE / "keys.db", copy(files)).id
        (lost,) = await server.issued.unexpired(server.clock.now(), holders=[id])
        keyring, _, _ = await live(files, server)
        held = keyring.credential(KIND)
        assert held is not None
        assert held.leaf.key_id == lost.key_id
        assert held.leaf.serial != lost.serial
        assert keyring.id == id

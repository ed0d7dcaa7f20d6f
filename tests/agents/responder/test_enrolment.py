"""Certificates are signed for whoever proves the request, and each proof is attacked."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from agents.responder import enrolment
from agents.responder.enrolment import Applicant, Binding, Enrolment, Terms
from agents.responder.nonces import LIFETIME
from agents.responder.records import IssuedRecord
from agents.runtime import logs
from agents.runtime.errors import UnavailableError
from pki import certificates, issuance, keys
from pki.certificates import Kind
from pki.enrolment import sign_request, verify_request
from pki.issuance import Issuer
from pki.names import Name, Role
from pki.peers import Expectation, Peer, check_peer
from pki.rotation import Policy
from protocol.messages import Enrol, Issued, Nonce, NonceGet, Pending, Refused
from tests.support.clock import START, FakeClock, settle
from tests.support.components import EXPORTER, Component, MemoryIssues, given
from tests.support.logs import logged

DEPLOYMENT = bytes(range(16))
RESPONDER = b"\x0a" * 16
ADDRESS = "127.0.1.11"
POLICY = Policy(timedelta(days=7), timedelta(hours=4))


@dataclass
class FakeSigning:
    """Admits as it is told."""

    issued_by: Terms
    answer: Pending | Refused | None = None
    broken: bool = False
    applicants: list[Applicant] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def admit(self, applicant: Applicant) -> Pending | Refused | None:
        self.applicants.append(applicant)
        if self.gate is not None:
            await self.gate.wait()
        return self.answer

    async def terms(self, kind: Kind) -> Terms:
        if self.broken:
            raise UnavailableError("no client CA yet")
        return self.issued_by


class Bench:
    """A responder that signs clients and, after approval, hubs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.root_key, self.ca_key = keys.generate(), keys.generate()
        self.root = certificates.make_root(self.root_key, "s.example", 0, START, 1 << 120)
        ca = issuance.issue(
            Issuer(self.root_key, (self.root,)),
            certificates.parse_request(certificates.make_request(self.ca_key, Kind.CLIENT_CA)),
            kind=Kind.CLIENT_CA,
            name=Name(DEPLOYMENT, Role.CLIENT_CA, RESPONDER),
            validity=timedelta(days=180),
            now=START,
            serial=2 << 120,
        )
        self.ca = ca
        self.clients = FakeSigning(Terms(Issuer(self.ca_key, (ca, self.root)), POLICY))
        self.hubs = FakeSigning(Terms(Issuer(self.root_key, (self.root,)), POLICY))
        self.record = MemoryIssues()
        self.service = Enrolment(
            {Kind.CLIENT_TLS: self.clients, Kind.HUB_TLS: self.hubs},
            deployment=DEPLOYMENT,
            record=self.record,
            clock=self.clock,
            log=logs.get_logger(),
        )
        self.issuer = keys.key_id(keys.generate().public_key())
        """The TLS key that the responder shows."""

    def nonce(self, component: Component, kind: Kind = Kind.CLIENT_TLS) -> bytes:
        return given(self.service.nonce(NonceGet(kind=kind.value, spki=component.spki), "a link"))

    def request(self, component: Component, kind: Kind = Kind.CLIENT_TLS) -> Enrol:
        return component.request(
            kind, self.nonce(component, kind), deployment=DEPLOYMENT, issuer=self.issuer
        )

    def binding(self, peer: Name | None = None, exporter: bytes = EXPORTER) -> Binding:
        return Binding(frozenset({self.issuer}), exporter, peer, ADDRESS)

    async def enrol(
        self, message: Enrol, binding: Binding | None = None
    ) -> Issued | Pending | Refused:
        return await self.service.enrol(message, binding or self.binding())


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    with logged() as found:
        yield found


def refused(answer: Issued | Pending | Refused, reason: str) -> Refused:
    assert isinstance(answer, Refused), answer
    assert answer.reason == reason
    return answer


# --- what an honest one gets


@pytest.mark.req("A7", "A8", "A12")
async def test_an_honest_request_gets_a_whole_chain(bench: Bench) -> None:
    component, key = Component(), keys.generate()
    message = component.request(
        Kind.CLIENT_TLS,
        bench.nonce(component),
        deployment=DEPLOYMENT,
        issuer=bench.issuer,
        key=key,
    )
    answer = await bench.enrol(message)
    assert isinstance(answer, Issued)
    assert answer.chain[1:] == [bench.ca, bench.root]
    assert answer.window == 4 * 3600
    peer = check_peer(
        answer.chain,
        Expectation(frozenset({Role.CLIENT}), DEPLOYMENT, component.id, RESPONDER),
        roots={keys.key_id(bench.root_key.public_key())},
        denied=frozenset(),
        now=START,
    )
    assert isinstance(peer, Peer)
    assert peer.leaf.key_id == keys.key_id(key.public_key())
    assert peer.leaf.not_after == START + timedelta(days=7)


@pytest.mark.req("B15")
async def test_an_expired_certificate_is_not_asked_for_nor_missed(bench: Bench) -> None:
    component = Component()
    first = await bench.enrol(bench.request(component))
    bench.clock.move(timedelta(days=60))
    again = await bench.enrol(bench.request(component))  # an enrolment link: nothing is shown
    assert isinstance(first, Issued)
    assert isinstance(again, Issued)
    before, after = (certificates.read(one.chain[0]) for one in (first, again))
    assert before.not_after < bench.clock.now() < after.not_after
    assert before.name == after.name


async def test_a_renewal_on_ones_own_link_is_the_same_request(bench: Bench) -> None:
    component = Component()
    peer = Name(DEPLOYMENT, Role.CLIENT, component.id)
    assert isinstance(await bench.enrol(bench.request(component), bench.binding(peer)), Issued)


async def test_a_request_is_good_for_any_key_that_the_link_may_have_shown(bench: Bench) -> None:
    component = Component()
    message = bench.request(component)
    newer = keys.key_id(keys.generate().public_key())
    binding = Binding(frozenset({newer, bench.issuer}), EXPORTER, None, ADDRESS)
    assert isinstance(await bench.enrol(message, binding), Issued)


async def test_the_likeliest_key_is_tried_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def verify(*args: bytes, **parts: bytes) -> bytes:
        tried.append(parts["issuer"])
        return verify_request(*args, **parts)  # type: ignore[arg-type]  # a KeyId is bytes

    monkeypatch.setattr("pki.enrolment.verify_request", verify)
    older = keys.key_id(keys.generate().public_key())
    binding = Binding((bench.issuer, older), EXPORTER, None, ADDRESS)
    assert isinstance(await bench.enrol(bench.request(Component()), binding), Issued)
    assert tried == [bench.issuer]


async def test_serial_numbers_are_long_and_differ(bench: Bench) -> None:
    for _ in range(20):
        assert isinstance(await bench.enrol(bench.request(Component())), Issued)
    serials = {record.serial for record in bench.record.records}
    assert len(serials) == 20
    assert all(120 < serial.bit_length() <= 159 for serial in serials)


# --- each check, attacked


@pytest.mark.req("A7", "B15")
async def test_a_nonce_of_nobodys_is_refused(bench: Bench) -> None:
    component = Component()
    message = component.request(
        Kind.CLIENT_TLS, b"\x09" * 32, deployment=DEPLOYMENT, issuer=bench.issuer
    )
    assert refused(await bench.enrol(message), "nonce").retry_after == 0.0


async def test_a_replayed_request_is_refused(bench: Bench) -> None:
    message = bench.request(Component())
    assert isinstance(await bench.enrol(message), Issued)
    refused(await bench.enrol(message), "nonce")
    assert len(bench.record.records) == 1


async def test_an_old_nonce_is_refused(bench: Bench) -> None:
    message = bench.request(Component())
    bench.clock.move_network(LIFETIME + 1)
    refused(await bench.enrol(message), "nonce")


async def test_the_nonce_of_another_identity_is_refused(bench: Bench) -> None:
    victim, thief = Component(), Component()
    message = thief.request(
        Kind.CLIENT_TLS, bench.nonce(victim), deployment=DEPLOYMENT, issuer=bench.issuer
    )
    refused(await bench.enrol(message), "nonce")


async def test_a_nonce_for_another_kind_is_refused(bench: Bench) -> None:
    component = Component()
    nonce = bench.nonce(component, Kind.CLIENT_TLS)
    message = component.request(Kind.HUB_TLS, nonce, deployment=DEPLOYMENT, issuer=bench.issuer)
    refused(await bench.enrol(message), "nonce")


@pytest.mark.req("B15")
@pytest.mark.parametrize("what", ["link", "issuer", "deployment", "relayed"])
async def test_a_request_signed_for_elsewhere_is_refused(bench: Bench, what: str) -> None:
    component = Component()
    elsewhere = keys.key_id(keys.generate().public_key())
    message = component.request(
        Kind.CLIENT_TLS,
        bench.nonce(component),
        deployment=bytes(16) if what == "deployment" else DEPLOYMENT,
        issuer=elsewhere if what == "issuer" else bench.issuer,
        exporter={"link": b"\x44" * 32, "relayed": bytes(32)}.get(what, EXPORTER),
    )
    refused(await bench.enrol(message), "request")
    assert bench.record.records == []


@pytest.mark.req("A7", "B15")
async def test_another_key_in_the_same_request_is_refused(bench: Bench) -> None:
    swapped = certificates.make_request(keys.generate(), Kind.CLIENT_TLS)
    message = msgspec.structs.replace(bench.request(Component()), csr=swapped)
    refused(await bench.enrol(message), "request")
    assert bench.record.records == []


async def test_an_identity_that_did_not_sign_is_refused(bench: Bench) -> None:
    """Whoever asks for a nonce in somebody's name still has no signature of his."""
    victim, thief = Component(), Component()
    nonce = bench.nonce(victim)
    message = thief.request(Kind.CLIENT_TLS, nonce, deployment=DEPLOYMENT, issuer=bench.issuer)
    refused(await bench.enrol(msgspec.structs.replace(message, spki=victim.spki)), "request")


async def test_a_flipped_bit_of_the_signature_is_refused(bench: Bench) -> None:
    message = bench.request(Component())
    flipped = message.signature[:-1] + bytes([message.signature[-1] ^ 1])
    refused(await bench.enrol(msgspec.structs.replace(message, signature=flipped)), "request")


@pytest.mark.req("A7")
@pytest.mark.parametrize("what", ["garbage", "unsigned", "attributes"])
async def test_a_request_without_proof_of_possession_is_refused(bench: Bench, what: str) -> None:
    component, key = Component(), keys.generate()
    csr = certificates.make_request(key, Kind.CLIENT_TLS)
    if what == "garbage":
        csr = b"\x30\x03\x02\x01\x00"
    elif what == "unsigned":  # somebody else's key, as seen on some link, and no signature of it
        mine, theirs = (keys.spki(k.public_key()) for k in (key, keys.generate()))
        assert mine in csr
        csr = csr.replace(mine, theirs)
    else:
        builder = x509.CertificateSigningRequestBuilder(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
        ).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        csr = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    signed = _signed_again(bench, component, csr)
    refused(await bench.enrol(signed), "request")
    assert bench.record.records == []


def _signed_again(bench: Bench, component: Component, csr: bytes) -> Enrol:
    """A request whose identity key signed even this."""
    nonce = bench.nonce(component)
    signature = sign_request(
        component.identity,
        deployment=DEPLOYMENT,
        issuer=bench.issuer,
        nonce=nonce,
        csr=csr,
        binding=EXPORTER,
    )
    return Enrol(kind="client-tls", csr=csr, spki=component.spki, nonce=nonce, signature=signature)


@pytest.mark.req("A6", "A7")
async def test_the_cas_own_key_is_certified_for_nobody(bench: Bench) -> None:
    component = Component()
    message = component.request(
        Kind.CLIENT_TLS,
        bench.nonce(component),
        deployment=DEPLOYMENT,
        issuer=bench.issuer,
        key=bench.ca_key,
    )
    refused(await bench.enrol(message), "request")


async def test_nobody_asks_on_another_components_link(bench: Bench) -> None:
    """A stolen certificate gives a link, and no identity key: it cannot prolong itself."""
    victim, thief = Component(), Component()
    peer = Name(DEPLOYMENT, Role.CLIENT, victim.id)
    refused(await bench.enrol(bench.request(thief), bench.binding(peer)), "identity")
    assert bench.clients.applicants == []


@pytest.mark.req("A12")
@pytest.mark.parametrize(
    ("role", "kind"),
    [
        (Role.CLIENT, Kind.HUB_TLS),
        (Role.HUB, Kind.CLIENT_TLS),
        (Role.ZONE_SERVER, Kind.HUB_TLS),
        (Role.SERVER, Kind.CLIENT_TLS),
    ],
)
async def test_a_link_gets_its_own_roles_kinds_only(bench: Bench, role: Role, kind: Kind) -> None:
    component = Component()
    peer = Name(DEPLOYMENT, role, component.id)
    refused(await bench.enrol(bench.request(component, kind), bench.binding(peer)), "role")
    assert bench.record.records == []


@pytest.mark.parametrize("kind", ["root", "server-tls", "client-ca", "message-signing", "", "?"])
async def test_a_kind_that_is_not_signed_here_is_refused(bench: Bench, kind: str) -> None:
    component = Component()
    answer = bench.service.nonce(NonceGet(kind=kind, spki=component.spki), "a link")
    assert isinstance(answer, Refused)
    assert answer.reason == "kind"
    message = msgspec.structs.replace(bench.request(component), kind=kind)
    refused(await bench.enrol(message), "kind")


async def test_who_is_not_admitted_gets_what_admission_says(bench: Bench) -> None:
    component = Component()
    bench.hubs.answer = Pending(fingerprint=component.key_id.hex(), retry_after=5.0)
    assert await bench.enrol(bench.request(component, Kind.HUB_TLS)) == bench.hubs.answer
    bench.hubs.answer = Refused(reason="approval", text="denied by an administrator")
    assert await bench.enrol(bench.request(component, Kind.HUB_TLS)) == bench.hubs.answer
    assert bench.record.records == []
    bench.hubs.answer = None
    assert isinstance(await bench.enrol(bench.request(component, Kind.HUB_TLS)), Issued)
    (applicant,) = bench.hubs.applicants[-1:]
    assert (applicant.id, applicant.spki) == (component.id, component.spki)
    assert (applicant.host, applicant.address) == ("host", ADDRESS)


async def test_admission_is_asked_only_after_everything_is_proven(bench: Bench) -> None:
    """A stranger cannot put another's fingerprint on the list of those that wait."""
    victim, thief = Component(), Component()
    nonce = bench.nonce(victim, Kind.HUB_TLS)
    message = thief.request(Kind.HUB_TLS, nonce, deployment=DEPLOYMENT, issuer=bench.issuer)
    refused(await bench.enrol(msgspec.structs.replace(message, spki=victim.spki)), "request")
    assert bench.hubs.applicants == []


# --- validity


@pytest.mark.req("A13")
async def test_nothing_outlives_its_issuer(bench: Bench) -> None:
    bench.clock.move(timedelta(days=178))
    answer = await bench.enrol(bench.request(Component()))
    assert isinstance(answer, Issued)
    leaf, ca = (certificates.read(der) for der in answer.chain[:2])
    assert leaf.not_after == ca.not_after < bench.clock.now() + POLICY.validity
    assert leaf.not_before >= ca.not_before


@pytest.mark.req("A13")
async def test_an_expired_ca_signs_nothing(bench: Bench) -> None:
    bench.clock.move(timedelta(days=181))
    refused(await bench.enrol(bench.request(Component())), "request")
    assert bench.record.records == []


@pytest.mark.req("A6")
async def test_clients_are_certified_by_the_client_ca_and_by_no_root(bench: Bench) -> None:
    for _ in range(60):
        assert isinstance(await bench.enrol(bench.request(Component())), Issued)
    issuers = {record.issuer for record in bench.record.records}
    assert issuers == {keys.key_id(bench.ca_key.public_key())}
    assert len(bench.record.records) == 60


# --- record before answer


async def test_what_is_not_on_record_does_not_leave(bench: Bench) -> None:
    bench.record.broken = True
    with logged() as lines:
        answer = refused(await bench.enrol(bench.request(Component())), "unavailable")
    assert answer.retry_after
    assert [line["remedy"] for line in lines] == ["free some space"]
    bench.record.broken = False
    assert isinstance(await bench.enrol(bench.request(Component())), Issued)


async def test_the_record_is_complete_before_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable = asyncio.Event()

    async def slowly(issued: IssuedRecord) -> None:
        await durable.wait()
        bench.record.records.append(issued)

    monkeypatch.setattr(bench.record, "record", slowly)
    component = Component()
    asked = asyncio.create_task(bench.enrol(bench.request(component)))
    await settle()
    assert not asked.done()
    durable.set()
    answer = await asked
    assert isinstance(answer, Issued)
    leaf = certificates.read(answer.chain[0])
    (record,) = bench.record.records
    assert (record.serial, record.key_id, record.kind) == (leaf.serial, leaf.key_id, "client-tls")
    assert (record.holder, record.at) == (component.id, START)
    assert (record.not_before, record.not_after) == (leaf.not_before, leaf.not_after)
    assert record.issuer == certificates.read(answer.chain[1]).key_id
    assert record.root == certificates.read(answer.chain[2]).key_id


@pytest.mark.req("I2")
async def test_who_is_revoked_while_his_certificate_is_recorded_does_not_get_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was denied at that moment was what was on record, and this was not yet."""
    message, record = bench.request(Component(), Kind.HUB_TLS), bench.record.record

    async def late(issued: IssuedRecord) -> None:
        await record(issued)
        bench.hubs.answer = Refused(reason="approval", text="revoked by an administrator")

    monkeypatch.setattr(bench.record, "record", late)
    refused(await bench.enrol(message), "approval")
    assert len(bench.record.records) == 1


async def test_who_cannot_sign_now_says_when_to_ask_again(bench: Bench) -> None:
    bench.clients.broken = True
    answer = refused(await bench.enrol(bench.request(Component())), "unavailable")
    assert answer.retry_after == enrolment.RETRY_AFTER


# --- E6


@pytest.mark.req("E6")
async def test_surplus_requests_are_told_when_to_retry_and_the_others_are_served(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.service, "_most", 3)
    bench.clients.gate = asyncio.Event()
    asked = [asyncio.create_task(bench.enrol(bench.request(Component()))) for _ in range(3)]
    await settle()
    late = bench.request(Component())
    assert refused(await bench.enrol(late), "busy").retry_after == enrolment.RETRY_AFTER
    bench.clients.gate.set()
    assert all(isinstance(answer, Issued) for answer in await asyncio.gather(*asked))
    # Its nonce was not spent: the same request is good when there is room.
    assert isinstance(await bench.enrol(late), Issued)


@pytest.mark.req("E6")
async def test_requests_that_wait_for_their_turn_are_bounded_as_well(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.service, "_most", 3)
    turn = asyncio.Event()

    async def wait() -> None:
        await turn.wait()

    async def ask() -> Issued | Pending | Refused:
        return await bench.service.enrol(bench.request(Component()), bench.binding(), wait)

    asked = [asyncio.create_task(ask()) for _ in range(3)]
    await settle()
    refused(await ask(), "busy")
    assert not bench.record.records
    turn.set()
    assert all(isinstance(answer, Issued) for answer in await asyncio.gather(*asked))
    assert isinstance(await ask(), Issued)


async def test_a_request_that_fails_gives_its_room_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.service, "_most", 1)
    for _ in range(3):
        message = msgspec.structs.replace(bench.request(Component()), signature=b"")
        refused(await bench.enrol(message), "request")
    bench.clients.gate = asyncio.Event()
    gone = asyncio.create_task(bench.enrol(bench.request(Component())))
    await settle()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    bench.clients.gate = None
    assert isinstance(await bench.enrol(bench.request(Component())), Issued)


@pytest.mark.req("B13")
async def test_capacity_is_measured(bench: Bench) -> None:
    assert bench.service.capacity == enrolment.ASSUMED_CAPACITY

    async def slowly(issued: IssuedRecord) -> None:
        bench.clock.move_network(0.1)

    bench.record.record = slowly  # type: ignore[method-assign]  # a disk that takes its time
    for _ in range(enrolment.MEASURED_FROM):
        await bench.enrol(bench.request(Component()))
    assert bench.service.capacity == pytest.approx(10.0)


# --- log


@pytest.mark.req("E5")
async def test_a_refusal_is_one_line_that_says_whose_and_why(
    bench: Bench, lines: list[dict[str, object]]
) -> None:
    component = Component()
    message = bench.request(component)
    await bench.enrol(message, bench.binding(exporter=b"\x55" * 32))
    (line,) = [line for line in lines if line["event"] == "enrolment.refused"]
    assert line["fingerprint"] == component.key_id.hex()
    assert line["remote"] == ADDRESS
    assert line["kind"] == "client-tls"
    assert "this link" in str(line["reason"])
    assert "signed on this link" in str(line["expected"])
    assert "hostile" in str(line["remedy"])
    message = bench.request(component)
    await bench.enrol(message)
    await bench.enrol(message)  # once more
    (_, line) = [line for line in lines if line["event"] == "enrolment.refused"]
    assert "repeats" in str(line["remedy"])


async def test_a_refusal_of_something_that_is_no_key_is_logged_too(
    bench: Bench, lines: list[dict[str, object]]
) -> None:
    nonce = bench.service.nonce(NonceGet(kind="client-tls", spki=b"no key"), "a link")
    assert isinstance(nonce, Nonce)
    message = msgspec.structs.replace(bench.request(Component()), spki=b"no key", nonce=nonce.nonce)
    refused(await bench.enrol(message), "request")
    assert [line["fingerprint"] for line in lines] == ["-"]


async def test_an_issue_is_logged_without_anything_secret(
    bench: Bench, lines: list[dict[str, object]]
) -> None:
    component = Component()
    message = msgspec.structs.replace(bench.request(component), secret="letmein")
    answer = await bench.enrol(message)
    assert isinstance(answer, Issued)
    (line,) = [line for line in lines if line["event"] == "certificate.issued"]
    assert line["holder"] == component.id.hex()
    assert line["fingerprint"] == certificates.read(answer.chain[0]).fingerprint
    assert "letmein" not in repr(lines)

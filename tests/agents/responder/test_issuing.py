"""Issuing: signed, on record, said, and only then out of the room."""

from datetime import timedelta

import pytest

from agents.responder.issuing import Issuing, Terms
from agents.runtime import logs
from agents.runtime.errors import StateError
from pki import certificates, issuance, keys
from pki.certificates import Kind
from pki.errors import MalformedError, RefusedError
from pki.issuance import Issuer
from pki.rotation import Policy
from tests.support.clock import START, FakeClock
from tests.support.components import MemoryIssues
from tests.support.logs import logged

DEPLOYMENT, HOLDER = bytes(range(16)), b"\x0a" * 16
VALIDITY = timedelta(days=60)


class Case:
    def __init__(self) -> None:
        key = keys.generate()
        root = certificates.make_root(key, "s.example", 0, START, 1 << 120)
        self.clock = FakeClock()
        self.record = MemoryIssues()
        self.asked: list[int] = []
        self.terms = Terms(Issuer(key, (root,)), Policy(VALIDITY, timedelta(hours=4)))
        self.issuing = Issuing(
            deployment=DEPLOYMENT,
            record=self.record,
            clock=self.clock,
            log=logs.get_logger(),
            random=self.random,
        )

    def random(self, count: int) -> bytes:
        self.asked.append(count)
        return len(self.asked).to_bytes(count)

    async def issue(self, kind: Kind = Kind.SERVER_TLS) -> tuple[bytes, ...]:
        csr = certificates.make_request(keys.generate(), kind)
        return await self.issuing.issue(kind, HOLDER, csr, self.terms)


async def test_what_leaves_is_on_record_and_said_once() -> None:
    case = Case()
    with logged() as lines:
        chain = await case.issue()
    leaf, root = (certificates.read(der) for der in chain)
    (record,) = case.record.records
    assert (record.serial, record.key_id, record.holder) == (leaf.serial, leaf.key_id, HOLDER)
    assert (record.issuer, record.root) == (root.key_id, root.key_id)
    assert (record.not_before, record.not_after) == (leaf.not_before, leaf.not_after)
    assert leaf.not_after == case.clock.now() + VALIDITY
    assert leaf.name == certificates.name_of(DEPLOYMENT, Kind.SERVER_TLS, HOLDER)
    (line,) = [line for line in lines if line["event"] == "certificate.issued"]
    assert (line["fingerprint"], line["root"]) == (leaf.fingerprint, root.fingerprint)


async def test_serial_numbers_come_from_the_clock_and_the_random_source() -> None:
    case = Case()
    serials = [certificates.read((await case.issue())[0]).serial for _ in range(3)]
    now = case.clock.now()
    assert serials == [issuance.serial(number.to_bytes, now) for number in (1, 2, 3)]
    assert case.asked == [10, 10, 10]


async def test_what_cannot_be_recorded_does_not_leave() -> None:
    case = Case()
    case.record.broken = True
    with logged() as lines, pytest.raises(StateError):
        await case.issue()
    assert "certificate.issued" not in [line["event"] for line in lines]


async def test_what_is_not_signed_is_not_recorded() -> None:
    case = Case()
    with pytest.raises(RefusedError, match="signed by a"):
        await case.issue(Kind.CLIENT_TLS)  # a root signs no client (A6)
    with pytest.raises(MalformedError):
        await case.issuing.issue(Kind.SERVER_TLS, HOLDER, b"no request", case.terms)
    assert case.record.records == []

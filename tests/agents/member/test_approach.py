"""The choice of the next link, row by row of the table in `agents.member.approach`."""

import pytest

from agents.member.approach import MAX_HOSTS, REFUSALS, Approach, Approaches
from protocol.access import LinkClass
from protocol.codes import CloseCode

DISCOVERY, ENROLMENT, MEMBER = LinkClass.DISCOVERY, LinkClass.ENROLMENT, LinkClass.MEMBER

HARMLESS = sorted(set(CloseCode) - REFUSALS)


def test_without_a_certificate_it_enrols() -> None:
    assert Approach().choose(certified=False) is ENROLMENT


def test_with_a_certificate_it_makes_a_member_link() -> None:
    assert Approach().choose(certified=True) is MEMBER


@pytest.mark.parametrize("code", sorted(REFUSALS))
@pytest.mark.parametrize("tried", [ENROLMENT, MEMBER])
@pytest.mark.parametrize("by_peer", [True, False])
def test_a_strict_handshake_that_failed_is_answered_by_looking_for_news(
    code: CloseCode, tried: LinkClass, by_peer: bool
) -> None:
    approach = Approach()
    approach.failed(tried, code, by_peer=by_peer)
    assert approach.choose(certified=True) is DISCOVERY
    assert approach.choose(certified=False) is DISCOVERY


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_refused_by_the_peer_it_looks_for_news_and_then_gets_a_new_certificate(
    code: CloseCode,
) -> None:
    approach = Approach()
    approach.failed(MEMBER, code, by_peer=True)
    approach.discovered()
    assert approach.choose(certified=True) is ENROLMENT
    approach.enrolled()
    assert approach.choose(certified=True) is MEMBER


def test_refused_by_us_its_own_certificate_stays_good() -> None:
    approach = Approach()
    approach.failed(MEMBER, CloseCode.UNTRUSTED, by_peer=False)
    approach.discovered()
    assert approach.choose(certified=True) is MEMBER


def test_refused_without_having_shown_a_certificate_its_own_stays_good() -> None:
    approach = Approach()
    approach.failed(ENROLMENT, CloseCode.UNTRUSTED, by_peer=True)
    approach.discovered()
    assert approach.choose(certified=True) is MEMBER


@pytest.mark.parametrize("code", [None, *HARMLESS])
@pytest.mark.parametrize("by_peer", [True, False])
def test_what_is_no_question_of_keys_changes_nothing(code: CloseCode | None, by_peer: bool) -> None:
    approach = Approach()
    approach.failed(MEMBER, code, by_peer=by_peer)
    assert approach.choose(certified=True) is MEMBER
    assert approach.choose(certified=False) is ENROLMENT


@pytest.mark.parametrize("code", [CloseCode.CLOCK, CloseCode.RETRY_AFTER])
def test_clock_and_retry_after_are_no_refusals(code: CloseCode) -> None:
    assert code not in REFUSALS


def test_a_discovery_that_fails_is_not_repeated() -> None:
    approach = Approach()
    approach.failed(MEMBER, CloseCode.UNTRUSTED, by_peer=False)
    approach.failed(DISCOVERY, None, by_peer=False)
    assert approach.choose(certified=True) is MEMBER


def test_a_discovery_does_not_make_a_refused_certificate_good() -> None:
    approach = Approach()
    approach.failed(MEMBER, CloseCode.REVOKED, by_peer=True)
    approach.failed(DISCOVERY, None, by_peer=False)
    assert approach.choose(certified=True) is ENROLMENT


class TestHosts:
    def test_a_stranger_spoils_only_its_own(self) -> None:
        approaches = Approaches()
        approaches.of("192.0.2.66").failed(MEMBER, CloseCode.UNTRUSTED, by_peer=True)
        assert approaches.of("192.0.2.66").choose(certified=True) is DISCOVERY
        assert approaches.of("192.0.2.1").choose(certified=True) is MEMBER

    def test_strangers_from_everywhere_take_a_bounded_place(self) -> None:
        approaches = Approaches()
        hub = approaches.of("192.0.2.1")
        hub.failed(MEMBER, CloseCode.UNTRUSTED, by_peer=False)
        for number in range(10 * MAX_HOSTS):
            approaches.of(f"2001:db8::{number:x}")
            assert approaches.of("192.0.2.1") is hub, "who is there is not forgotten"
        assert len(approaches._hosts) == MAX_HOSTS

    def test_a_new_certificate_is_new_for_all(self) -> None:
        approaches = Approaches()
        for host in ("a", "b"):
            approaches.of(host).failed(MEMBER, CloseCode.EXPIRED, by_peer=True)
            approaches.of(host).discovered()
        approaches.enrolled()
        assert {approaches.of(h).choose(certified=True) for h in ("a", "b")} == {MEMBER}

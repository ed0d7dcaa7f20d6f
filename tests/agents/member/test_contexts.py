"""TLS contexts: one a state of trust and credential."""

import pytest

from agents.member.contexts import MAX_SHOWN
from pki.certificates import Kind
from pki.names import Role
from tests.support.deployment import Deployment


def test_the_same_until_something_changes() -> None:
    site = Deployment()
    member = site.member(Role.CLIENT)
    site.certify(member.keyring, Kind.CLIENT_TLS)
    contexts = member.contexts
    for make in (contexts.server, contexts.member, contexts.enrolment, contexts.discovery):
        assert make() is make()


def test_new_ones_after_a_change_of_trust() -> None:
    site = Deployment()
    member = site.member(Role.CLIENT)
    site.certify(member.keyring, Kind.CLIENT_TLS)
    before = member.contexts.member()
    site.rotate()
    site.teach(member.trust)
    assert member.contexts.member() is not before


def test_new_ones_for_a_new_certificate() -> None:
    site = Deployment()
    member = site.member(Role.CLIENT)
    site.certify(member.keyring, Kind.CLIENT_TLS)
    before = member.contexts.server()
    site.certify(member.keyring, Kind.CLIENT_TLS)
    assert member.contexts.server() is not before


def test_the_same_after_a_head_that_changes_no_trust() -> None:
    site = Deployment()
    member = site.member(Role.CLIENT)
    before = member.contexts.enrolment()
    site.deny()
    site.teach(member.trust)
    assert member.contexts.enrolment() is before


@pytest.mark.parametrize("kind", [Kind.CLIENT_CA, Kind.ZONE_SERVER_TLS])
def test_new_ones_for_a_new_client_ca_as_well(kind: Kind) -> None:
    site = Deployment()
    member = site.member(Role.ZONE_SERVER)
    for one in (Kind.CLIENT_CA, Kind.ZONE_SERVER_TLS):
        site.certify(member.keyring, one)
    before = member.contexts.server()
    site.certify(member.keyring, kind)
    assert member.contexts.server() is not before


@pytest.mark.req("A7")
def test_the_last_tls_keys_are_remembered_and_nothing_else() -> None:
    site = Deployment()
    member = site.member(Role.ZONE_SERVER)
    site.certify(member.keyring, Kind.CLIENT_CA)
    assert member.contexts.shown_keys == ()
    shown = []
    for _ in range(MAX_SHOWN + 2):
        held = site.certify(member.keyring, Kind.ZONE_SERVER_TLS)
        member.contexts.server()
        shown.append(held.leaf.key_id)
    assert member.contexts.shown_keys == tuple(reversed(shown[-MAX_SHOWN:]))


def test_no_server_without_a_certificate() -> None:
    with pytest.raises(LookupError):
        Deployment().member(Role.SERVER).contexts.server()


def test_no_certificate_is_shown_that_ended_at_a_revoked_root() -> None:
    site = Deployment()
    member = site.member(Role.SERVER)
    site.certify(member.keyring, Kind.SERVER_TLS)
    member.contexts.server()
    site.rotate()
    site.revoke(0)
    site.teach(member.trust)
    with pytest.raises(LookupError):
        member.contexts.server()

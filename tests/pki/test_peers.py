"""The numbered list after a handshake: each of its refusals, by an impostor who has that power.

The chains here are such as OpenSSL would hand over: signatures and path are good, or at least
are not what is tested.
"""

from datetime import timedelta

import pytest

from pki import certificates, issuance
from pki.certificates import Kind
from pki.errors import (
    ExpiredError,
    MalformedError,
    NotYetValidError,
    RevokedError,
    RoleError,
    UnknownKeyError,
    UntrustedError,
)
from pki.issuance import Issuer
from pki.keys import KeyId, key_id
from pki.names import Name, Role
from pki.peers import Expectation, Peer, check_peer
from tests.pki.hierarchy import (
    DAY,
    DEPLOYMENT,
    ID,
    NOW,
    OTHER_ID,
    client_ca,
    key,
    leaf,
    name,
    request,
    root,
)

ROOT = key_id(key("root").public_key())
ROLE_OF = {
    Kind.SERVER_TLS: Role.SERVER,
    Kind.HUB_TLS: Role.HUB,
    Kind.ZONE_SERVER_TLS: Role.ZONE_SERVER,
    Kind.CLIENT_TLS: Role.CLIENT,
}


def chain_of(kind: Kind) -> tuple[bytes, ...]:
    issuer = client_ca() if kind is Kind.CLIENT_TLS else root()
    return (leaf(kind), *issuer.chain)


def unchecked(kind: Kind, issuer: Issuer, named: Name, label: str = "leaf") -> bytes:
    """A certificate as the holder of an issuer's key can make it, whatever our rules say."""
    return issuance.issue(
        issuer,
        request(label, kind),
        kind=kind,
        name=named,
        validity=7 * DAY,
        now=NOW,
        serial=78,
        constraints=(),
    )


def expect(*roles: Role, id: bytes | None = None, ca_of: bytes | None = ID) -> Expectation:
    return Expectation(frozenset(roles or Role), DEPLOYMENT, id, ca_of)


def check(
    chain: tuple[bytes, ...],
    expectation: Expectation | None = None,
    *,
    denied: tuple[KeyId, ...] = (),
    after: timedelta = timedelta(0),
) -> Peer:
    return check_peer(
        chain, expectation or expect(), roots={ROOT}, denied=set(denied), now=NOW + after
    )


@pytest.mark.parametrize("kind", ROLE_OF, ids=str)
def test_a_component_of_each_role_passes(kind: Kind) -> None:
    chain = chain_of(kind)
    peer = check(chain, expect(ROLE_OF[kind], id=ID))
    assert (peer.name, peer.role, peer.root) == (name(kind), ROLE_OF[kind], ROOT)
    assert peer.leaf == certificates.read(chain[0])
    assert peer.not_after == NOW + 7 * DAY
    ca = key_id(key("client CA").public_key())
    assert peer.ca == (ca if kind is Kind.CLIENT_TLS else None)


# 1. A chain exists.


def test_nobody_is_nobody() -> None:
    with pytest.raises(UntrustedError, match="no certificate"):
        check(())


def test_a_certificate_that_cannot_be_read() -> None:
    with pytest.raises(MalformedError):
        check((b"noise", *root().chain))


# 2. Dates, with both clocks.


@pytest.mark.req("E7")
def test_an_expired_leaf_is_named_with_both_clocks() -> None:
    now = NOW + 7 * DAY + timedelta(seconds=1)
    with pytest.raises(ExpiredError) as caught:
        check(chain_of(Kind.SERVER_TLS), after=now - NOW)
    assert (caught.value.limit, caught.value.now) == (NOW + 7 * DAY, now)
    assert caught.value.key_id == key_id(key("leaf").public_key())


@pytest.mark.req("E7")
def test_a_leaf_from_the_future_is_named_with_both_clocks() -> None:
    now = NOW - certificates.BACKDATE - timedelta(seconds=1)
    with pytest.raises(NotYetValidError) as caught:
        check(chain_of(Kind.SERVER_TLS), after=now - NOW)
    assert caught.value.now == now
    assert caught.value.limit == NOW - certificates.BACKDATE


@pytest.mark.parametrize(
    "after",
    [-certificates.BACKDATE, timedelta(0), 7 * DAY],
    ids=["from its first second", "now", "to its last second"],
)
def test_dates_include_their_ends(after: timedelta) -> None:
    check(chain_of(Kind.SERVER_TLS), after=after)


def test_an_expired_ca_ends_the_chain_though_the_leaf_is_in_date() -> None:
    short = client_ca(days=10)
    fresh = issuance.issue(
        client_ca(),
        request("leaf"),
        kind=Kind.CLIENT_TLS,
        name=name(Kind.CLIENT_TLS),
        validity=30 * DAY,
        now=NOW,
        serial=79,
    )
    with pytest.raises(ExpiredError) as caught:
        check((fresh, *short.chain), after=11 * DAY)
    assert caught.value.key_id == key_id(key("client CA").public_key())


def test_a_peer_ends_with_the_first_of_its_chain() -> None:
    short = client_ca(days=2)
    peer = check((chain_of(Kind.CLIENT_TLS)[0], *short.chain))
    assert peer.not_after == NOW + 2 * DAY


# 3. Revoked or unknown keys.


@pytest.mark.parametrize("label", ["leaf", "client CA", "root"])
def test_a_denied_key_anywhere_in_the_chain(label: str) -> None:
    gone = key_id(key(label).public_key())
    with pytest.raises(RevokedError) as caught:
        check(chain_of(Kind.CLIENT_TLS), denied=(gone,))
    assert caught.value.key_id == gone


def test_a_root_that_is_not_trusted() -> None:
    thief = root("thief")
    forged = leaf(Kind.SERVER_TLS, issuer=thief)
    with pytest.raises(UnknownKeyError) as caught:
        check((forged, *thief.chain))
    assert caught.value.key_id == key_id(key("thief").public_key())


def test_a_chain_that_does_not_end_at_a_root() -> None:
    with pytest.raises(UnknownKeyError):
        check(chain_of(Kind.CLIENT_TLS)[:2])


def test_dates_are_looked_at_before_revocation() -> None:
    """A returning client hears "expired", which it can mend by itself."""
    gone = key_id(key("leaf").public_key())
    with pytest.raises(ExpiredError):
        check(chain_of(Kind.CLIENT_TLS), denied=(gone,), after=8 * DAY)


# 4. Role, id and deployment.


@pytest.mark.req("A12")
@pytest.mark.parametrize("expected", ROLE_OF.values(), ids=str)
@pytest.mark.parametrize("kind", ROLE_OF, ids=str)
def test_each_role_passes_as_itself_only(kind: Kind, expected: Role) -> None:
    if ROLE_OF[kind] is expected:
        check(chain_of(kind), expect(expected))
        return
    with pytest.raises(RoleError) as caught:
        check(chain_of(kind), expect(expected))
    assert (caught.value.expected, caught.value.got) == (expected, ROLE_OF[kind])


def test_another_component_of_the_same_role() -> None:
    with pytest.raises(RoleError, match=OTHER_ID.hex()):
        check(chain_of(Kind.SERVER_TLS), expect(Role.SERVER, id=OTHER_ID))


def test_another_deployment() -> None:
    stranger = Name(bytes(16), Role.SERVER, ID)
    with pytest.raises(RoleError, match=bytes(16).hex()):
        check((unchecked(Kind.SERVER_TLS, root(), stranger), *root().chain))


def test_a_root_poses_as_a_component() -> None:
    with pytest.raises(RoleError):
        check(root().chain)


# 5. Usage: each certificate of its kind, below the kind that issues it.


@pytest.mark.req("A12")
@pytest.mark.parametrize("kind", [Kind.SERVER_TLS, Kind.HUB_TLS, Kind.ZONE_SERVER_TLS], ids=str)
def test_a_client_ca_makes_clients_and_nothing_else(kind: Kind) -> None:
    """The thief of a zone server's CA key would be a server to everybody."""
    minted = unchecked(kind, client_ca(), name(kind))
    with pytest.raises(UntrustedError) as caught:
        check((minted, *client_ca().chain), expect(ROLE_OF[kind]))
    assert not isinstance(caught.value, RoleError)


def test_a_client_straight_below_a_root() -> None:
    minted = unchecked(Kind.CLIENT_TLS, root(), name(Kind.CLIENT_TLS))
    with pytest.raises(UntrustedError):
        check((minted, *root().chain), expect(Role.CLIENT))


def test_a_client_poses_as_a_ca() -> None:
    middle = Issuer(key("leaf"), chain_of(Kind.CLIENT_TLS))
    minted = unchecked(Kind.CLIENT_TLS, middle, name(Kind.CLIENT_TLS), "victim")
    with pytest.raises(UntrustedError):
        check((minted, *middle.chain), expect(Role.CLIENT))


@pytest.mark.parametrize("kind", [Kind.MESSAGE_SIGNING, Kind.CLIENT_CA], ids=str)
def test_a_key_of_another_use_ends_no_link(kind: Kind) -> None:
    chain = (leaf(kind), *root().chain)
    with pytest.raises(RoleError):
        check(chain, expect(*ROLE_OF.values()))


def test_the_usage_of_a_message_signing_key_under_a_server_s_name() -> None:
    minted = unchecked(Kind.MESSAGE_SIGNING, root(), name(Kind.SERVER_TLS))
    with pytest.raises(UntrustedError, match="no known kind"):
        check((minted, *root().chain), expect(Role.SERVER))


# 6. The client CA of this responder.


def _other_ca() -> Issuer:
    named = Name(DEPLOYMENT, Role.CLIENT_CA, OTHER_ID)
    der = leaf(Kind.CLIENT_CA, issuer=root(), label="other CA", named=named, validity=180 * DAY)
    return Issuer(key("other CA"), (der, *root().chain))


def test_a_client_of_another_responder() -> None:
    ca = _other_ca()
    minted = leaf(Kind.CLIENT_TLS, issuer=ca)
    check((minted, *ca.chain), expect(Role.CLIENT, ca_of=OTHER_ID))
    with pytest.raises(RoleError, match=OTHER_ID.hex()):
        check((minted, *ca.chain), expect(Role.CLIENT, ca_of=ID))


def test_no_client_passes_where_no_responder_is_named() -> None:
    with pytest.raises(RoleError):
        check(chain_of(Kind.CLIENT_TLS), expect(Role.CLIENT, ca_of=None))


def test_a_ca_of_another_deployment_above_a_client_of_ours() -> None:
    foreign = unchecked(Kind.CLIENT_CA, root(), Name(bytes(16), Role.CLIENT_CA, ID), "foreign CA")
    ca = Issuer(key("foreign CA"), (foreign, *root().chain))
    minted = unchecked(Kind.CLIENT_TLS, ca, name(Kind.CLIENT_TLS))
    with pytest.raises(UntrustedError, match="another deployment"):
        check((minted, *ca.chain), expect(Role.CLIENT))

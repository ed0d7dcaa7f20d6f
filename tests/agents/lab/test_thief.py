"""What the lab's thief makes is as good as stolen keys allow: else refusing it proves nothing."""

from datetime import timedelta
from pathlib import Path

import pytest

from agents.lab.layout import make_layout
from agents.lab.thief import Loot, Thief, mint, own_successor, tail
from agents.member.keyring import Keyring
from agents.runtime.files import DISK
from pki import keys, trust
from pki.certificates import Kind
from pki.errors import PKIError
from pki.issuance import Issuer
from pki.ledger import Chain
from pki.names import Name, Role
from pki.peers import Expectation, check_peer
from pki.trust import Succession
from tests.pki import lineage
from tests.pki.lineage import NOW

SERVER_ID = bytes(range(16))


def issuer(index: int) -> Issuer:
    return Issuer(lineage.key(index), (lineage.root(index, index),))


def minted(role: Role, *, root: int = 0) -> tuple[bytes, ...]:
    name = Name(lineage.DEPLOYMENT, role, SERVER_ID)
    return mint(issuer(root), role, name, NOW).credentials.chain


def test_a_minted_certificate_is_taken_while_its_root_is_trusted() -> None:
    chain = lineage.honest(2)
    peer = check_peer(
        minted(Role.HUB),
        Expectation(roles=frozenset({Role.HUB}), deployment=lineage.DEPLOYMENT),
        roots={root.key_id for root in chain.trusted_roots},
        denied=frozenset(),
        now=NOW,
    )
    assert peer.name.id == SERVER_ID


@pytest.mark.parametrize("role", [Role.SERVER, Role.HUB, Role.ZONE_SERVER])
def test_and_not_afterwards(role: Role) -> None:
    chain = lineage.honest(2, revoked=[0])
    with pytest.raises(PKIError):
        check_peer(
            minted(role),
            Expectation(roles=frozenset({role}), deployment=lineage.DEPLOYMENT),
            roots={root.key_id for root in chain.trusted_roots},
            denied=frozenset(),
            now=NOW,
        )


def straggler() -> trust.TrustState:
    """Who knows the first root and nothing else."""
    return trust.from_chain(lineage.genesis())


@pytest.mark.req("B11")
def test_a_successor_of_the_thiefs_own_is_refused() -> None:
    state = straggler()
    entry, mine = own_successor(lineage.genesis(), lineage.key(0), NOW)
    outcome = trust.accept_entries(state, lineage.genesis().slot, 1, [entry])
    assert not outcome.changed
    assert "not the one committed to" in (outcome.problem or "")
    assert mine.facts.key_id not in trust.trusted(outcome.state)


@pytest.mark.req("B10")
def test_the_honest_chain_heals_whom_a_forged_tail_has_misled() -> None:
    honest = lineage.revoke(lineage.honest(3), 0, 1)
    state = straggler()
    entry, forged = tail(honest, honest.roots[1], [lineage.key(0), lineage.key(1)], NOW)
    misled = trust.accept_entries(state, honest.slot, 1, [entry])
    assert misled.changed
    assert misled.state.first.chain.last.id == forged
    healed = trust.accept_entries(misled.state, honest.slot, 0, honest.encoded)
    assert healed.succession is Succession.SUPERSEDES
    assert healed.state.first.chain.last == honest.last


@pytest.mark.req("B10")
def test_a_forged_tail_changes_nothing_for_whom_is_up_to_date() -> None:
    honest = lineage.revoke(lineage.honest(3), 0, 1)
    entry, _ = tail(honest, honest.roots[1], [lineage.key(0), lineage.key(1)], NOW)
    told = [*honest.encoded[:1], entry]
    outcome = trust.accept_entries(trust.from_chain(honest), honest.slot, 0, told)
    assert not outcome.changed


def make_victim(folder: Path, name: str, *, roots: bool) -> Keyring:
    """A sealed file with a client CA, and with roots on a server."""
    folder.mkdir(parents=True, exist_ok=True)
    keyring = Keyring(folder / name, DISK)
    if roots:
        first = lineage.genesis().roots[0].key_id
        keyring.keep_roots({first: lineage.key(0)})
    return keyring


def test_copies_of_the_sealed_files_are_enough(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, 4, port=15000)
    make_victim(layout.server.state, "pki.db", roots=True)
    make_victim(layout.zone.state, "keys.db", roots=False)
    chain: Chain = lineage.genesis()
    loot = Thief(layout, tmp_path / "thief").steal(chain)
    made = loot.mint(Role.HUB, SERVER_ID, root=0, now=NOW)
    assert made.credentials.chain[-1] == chain.roots[0].der
    assert made.fingerprint == keys.key_id(made.credentials.key.public_key()).hex()
    with pytest.raises(LookupError, match="no client CA"):
        loot.mint(Role.CLIENT, SERVER_ID, root=0, now=NOW)


def test_a_root_that_the_server_has_erased_cannot_be_stolen(tmp_path: Path) -> None:
    keyring = make_victim(tmp_path / "s", "pki.db", roots=True)
    loot = Loot(keyring, keyring, lineage.honest(2))
    assert loot.root_key(1) is None
    with pytest.raises(LookupError, match="root 1"):
        loot.mint(Role.HUB, SERVER_ID, root=1, now=NOW)


def test_what_he_mints_is_in_date(tmp_path: Path) -> None:
    later = NOW + timedelta(days=400)
    name = Name(lineage.DEPLOYMENT, Role.SERVER, SERVER_ID)
    made = mint(issuer(0), Role.SERVER, name, later)
    from pki import certificates

    leaf = certificates.read(made.credentials.chain[0])
    assert leaf.kind is Kind.SERVER_TLS
    assert leaf.not_before <= later < leaf.not_after

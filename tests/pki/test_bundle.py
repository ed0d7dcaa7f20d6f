"""The init bundle: whole, or refused with the reason; and what a state takes from one."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import encoding, ledger, statements, trust
from pki.bundle import (
    DOMAIN,
    Bundle,
    deployment_fingerprint,
    make_bundle,
    open_bundle,
)
from pki.errors import MalformedError, PKIError, SignatureError
from pki.ledger import Chain
from tests.pki import lineage
from tests.pki.lineage import ALIEN, NOW, forge_rotate, honest, kid, kids

SETTINGS = {"ServerNameList": "a.example, b.example", "port": "14172"}


def _bundle(roots: int = 3, revoked: Sequence[int] = (0,)) -> bytes:
    chain = honest(roots, revoked=revoked)
    head = lineage.head(chain, roots - 1, denied=kids([50]))
    return make_bundle(lineage.key(roots - 1), [chain], [head], SETTINGS)


def _raw(changes: dict[str, object] | None = None, *, signer: int = 2) -> bytes:
    fields: dict[str, object] = {
        "version": 1,
        "deployment": lineage.DEPLOYMENT,
        "slots": [list(honest(3).encoded)],
        "heads": [lineage.head(honest(3), 2)],
        "settings": [["a", "1"], ["b", "2"]],
    }
    body = encoding.pack(list((fields | (changes or {})).values()))
    return statements.make_statement(lineage.key(signer), DOMAIN, body)


@pytest.mark.req("D3")
def test_a_bundle_is_read_back_as_it_was_made() -> None:
    chain = honest(3, revoked=[0])
    bundle = open_bundle(_bundle())
    assert bundle.chains == (chain,)
    assert bundle.slots == [list(chain.encoded)]
    assert bundle.deployment == lineage.DEPLOYMENT
    assert dict(bundle.settings) == SETTINGS
    assert (bundle.signer, bundle.problems) == (kid(2), ())
    for number in range(20):
        secret = lineage.key(number).private_numbers().private_value.to_bytes(32, "big")
        assert secret not in _bundle()


def test_the_raw_bundle_of_these_tests_is_good() -> None:
    assert open_bundle(_raw()).chains == (honest(3),)


@pytest.mark.req("D5")
def test_every_cut_bundle_is_refused() -> None:
    data = _bundle()
    for length in range(len(data)):
        with pytest.raises(MalformedError):
            open_bundle(data[:length])


@pytest.mark.req("D5")
def test_every_altered_byte_is_refused() -> None:
    data = _bundle()
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 1 << place % 8
        with pytest.raises((MalformedError, SignatureError)):
            open_bundle(bytes(altered))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_a_documented_error(data: bytes) -> None:
    with pytest.raises(PKIError):
        open_bundle(data)


OTHER = lineage.genesis(b"another one, 16.")


@pytest.mark.req("D5")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"version": 2}, id="version 2"),
        pytest.param({"slots": []}, id="no slot"),
        pytest.param({"slots": [list(honest(3).encoded)] * 2}, id="a slot twice"),
        pytest.param({"slots": [[]]}, id="an empty slot"),
        pytest.param({"slots": [list(honest(3).encoded[1:])]}, id="a slot without GENESIS"),
        pytest.param(
            {"slots": [[*honest(3).encoded, b"noise"]]}, id="a chain with an invalid entry"
        ),
        pytest.param({"deployment": bytes(16)}, id="another deployment"),
        pytest.param(
            {"slots": [list(honest(3).encoded), list(OTHER.encoded)]},
            id="a peer of another deployment",
        ),
        pytest.param({"heads": [lineage.head(OTHER, 0)]}, id="a head of another slot"),
        pytest.param({"heads": [lineage.head(honest(3), 2)] * 2}, id="two heads of a slot"),
        pytest.param({"heads": [b"noise"]}, id="a head that is none"),
        pytest.param({"settings": [["b", "2"], ["a", "1"]]}, id="settings not sorted"),
        pytest.param({"settings": [["a", "1"], ["a", "2"]]}, id="a setting twice"),
        pytest.param({"settings": [["a", 1]]}, id="a setting that is no text"),
        pytest.param({"settings": [["", "1"]]}, id="a setting without a name"),
        pytest.param({"settings": [["a" * 65, "1"]]}, id="a long name"),
        pytest.param({"settings": [["a", "1" * 4097]]}, id="a long text"),
        pytest.param({"settings": [[f"{n:03}", ""] for n in range(257)]}, id="257 settings"),
    ],
)
def test_a_bundle_that_contradicts_itself_is_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        open_bundle(_raw(changes))


@pytest.mark.req("D5")
@pytest.mark.parametrize("signer", [0, 1, 3, ALIEN], ids="key {}".format)
def test_only_the_current_root_of_its_first_slot_signs_it(signer: int) -> None:
    with pytest.raises(SignatureError, match=kid(signer).hex()):
        open_bundle(_raw(signer=signer))
    with pytest.raises(SignatureError):
        make_bundle(lineage.key(signer), [honest(3)])


def test_an_entry_of_a_later_kind_cuts_the_chain_and_is_reported() -> None:
    later = lineage.raw_entry(lineage.raw_body(honest(3), 4, [bytes(32)]), [2])
    bundle = open_bundle(_raw({"slots": [[*honest(3).encoded, later]], "heads": []}))
    assert bundle.chains == (honest(3),)
    assert [(problem.n, problem.unknown) for problem in bundle.problems] == [(3, True)]


def test_a_bundle_without_a_slot_is_not_made() -> None:
    with pytest.raises(MalformedError):
        make_bundle(lineage.key(0), [])


@pytest.mark.req("D5")
def test_a_bundle_of_nine_slots_is_refused() -> None:
    chains = [
        ledger.make_genesis(
            lineage.root(n, 0),
            lineage.key(n),
            kids(range(100, 116)),
            lineage.DEPLOYMENT,
            1,
            lineage.AUDIT,
        )
        for n in range(9)
    ]
    assert len(open_bundle(make_bundle(lineage.key(0), chains[:8])).chains) == 8
    with pytest.raises(MalformedError, match="9 slots"):
        open_bundle(_raw({"slots": [list(one.encoded) for one in chains]}, signer=0))
    with pytest.raises(MalformedError, match="9 slots"):
        make_bundle(lineage.key(0), chains)


# The fingerprint that people compare.


@pytest.mark.req("D5")
def test_a_fingerprint_names_deployment_and_slots_and_nothing_that_moves() -> None:
    fingerprint = open_bundle(_bundle()).fingerprint
    assert open_bundle(_bundle(5, [1])).fingerprint == fingerprint
    assert fingerprint == deployment_fingerprint(lineage.DEPLOYMENT, [honest(3).slot])
    assert trust.from_bundle(open_bundle(_bundle())).fingerprint == fingerprint
    assert deployment_fingerprint(lineage.DEPLOYMENT, [OTHER.slot]) != fingerprint
    assert deployment_fingerprint(bytes(16), [honest(3).slot]) != fingerprint


def test_a_fingerprint_does_not_depend_on_who_made_the_bundle() -> None:
    slots = [honest(3).slot, OTHER.slot]
    ours = deployment_fingerprint(lineage.DEPLOYMENT, slots)
    assert ours == deployment_fingerprint(lineage.DEPLOYMENT, slots[::-1])


# What a state takes from one.


def _opened(chain: Chain, signer: int, *heads: bytes) -> Bundle:
    return open_bundle(make_bundle(lineage.key(signer), [chain], heads, SETTINGS))


def test_a_component_that_knows_nothing_starts_from_a_bundle() -> None:
    state = trust.from_bundle(open_bundle(_bundle()))
    assert trust.newest_root(state) == kid(2)
    assert trust.trusted(state) == set(kids([1, 2]))
    assert trust.denied(state) == {kid(50)}
    longer = lineage.rotate(honest(3, revoked=[0]))
    assert trust.accept_entries(state, longer.slot, 0, longer.encoded).changed


@pytest.mark.parametrize(
    ("roots", "changed", "applies"),
    [(2, False, False), (3, False, True), (5, True, True)],
    ids=["an older one", "the same one", "a newer one"],
)
def test_a_bundle_over_a_state_is_one_more_source(roots: int, changed: bool, applies: bool) -> None:
    state = trust.from_chain(honest(3))
    outcome, settings = trust.accept_bundle(state, _opened(honest(roots), roots - 1))
    assert (outcome.changed, settings) == (changed, applies)
    assert outcome.state.chains == (honest(max(3, roots)),)


def test_a_bundle_of_a_branch_that_is_kept_out_applies_nothing() -> None:
    tail = forge_rotate(honest(2), 2, [1, 2], more=ALIEN)
    ours = trust.from_chain(honest(4))
    branch = trust.accept_entries(trust.from_chain(honest(2)), honest(2).slot, 2, [tail]).state
    outcome, settings = trust.accept_bundle(ours, _opened(branch.first.chain, 2))
    assert (outcome.changed, settings) == (False, False)
    assert outcome.evidence is not None


def test_a_bundle_of_another_deployment_changes_nothing() -> None:
    ours = trust.from_chain(honest(3))
    outcome, settings = trust.accept_bundle(ours, _opened(OTHER, 0))
    assert (outcome.state, settings) == (ours, False)
    assert outcome.problem == "bundle of another deployment"


def test_a_bundle_of_a_second_slot_adds_none() -> None:
    """Slots are those of the first bundle: a later one is a source, not an authority."""
    payload = [lineage.DEPLOYMENT, lineage.root(80, 0), kids(range(81, 97)), 0, []]
    second = lineage.raw_entry(lineage.raw_body(None, 0, payload), [80])
    raw = open_bundle(_raw({"slots": [[second], list(honest(4).encoded)], "heads": []}, signer=80))
    ours = trust.from_chain(honest(3))
    outcome, settings = trust.accept_bundle(ours, raw)
    assert outcome.state.chains == (honest(4),)
    assert not settings


def test_a_head_of_a_bundle_counts_as_any_other() -> None:
    chain = honest(3)
    state = trust.from_chain(chain, head=lineage.head(chain, 2, time=100, denied=kids([50])))
    older = _opened(chain, 2, lineage.head(chain, 2, time=99))
    assert trust.denied(trust.accept_bundle(state, older)[0].state) == {kid(50)}
    newer = _opened(chain, 2, lineage.head(chain, 2, time=101))
    assert trust.denied(trust.accept_bundle(state, newer)[0].state) == frozenset()
    stranger = _opened(chain, 2, lineage.head(chain, ALIEN, time=102))
    assert trust.denied(trust.accept_bundle(state, stranger)[0].state) == {kid(50)}
    assert trust.accept_head(state, lineage.head(chain, 2, time=101), NOW).state != state

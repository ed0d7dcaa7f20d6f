"""The vectors are what is written today, and both verifiers agree with what they expect."""

from pathlib import Path

import pytest

from pki import trust
from pki.bundle import open_bundle
from pki.catchup import answer
from pki.errors import MalformedError, SignatureError
from pki.ledger import Chain, read_chain
from tests.pki.conformance import oracle
from tests.pki.lineage import NOW
from tests.vectors.form import Case, all_of, load, one_of
from tests.vectors.regenerate import FILES, FOLDER


def _cases(name: str) -> list[object]:
    return [pytest.param(case, id=one_of(case, "case")) for case in load(FOLDER / name)]


def _bytes(case: Case, name: str) -> list[bytes]:
    return [bytes.fromhex(value) for value in all_of(case, name)]


def _chain(case: Case, name: str) -> Chain:
    chain, problem = read_chain(_bytes(case, name))
    assert chain is not None
    assert problem is None
    return chain


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_is_written_today(name: str) -> None:
    """Run `python -m tests.vectors.regenerate` where a format was meant to change."""
    assert (FOLDER / name).read_text(encoding="ascii") == FILES[name]()


def test_every_file_is_known() -> None:
    assert {path.name for path in Path(FOLDER).glob("*.txt")} == set(FILES)


@pytest.mark.req("B10")
@pytest.mark.parametrize("case", _cases("chains.txt"))
def test_chains(case: Case) -> None:
    entries, valid = _bytes(case, "entry"), int(one_of(case, "valid"))
    chain, problem = read_chain(entries)
    total = oracle.add_up(entries)
    assert (problem is None) == (valid == len(entries))
    assert chain is not None
    assert [entry.id for entry in chain.entries] == total.entry_ids == _bytes(case, "id")
    assert len(chain.entries) == valid
    assert list(chain.state.key_ids) == total.roots == _bytes(case, "root")
    assert list(chain.state.next) == total.next == _bytes(case, "next")
    revoked = set(_bytes(case, "revoked"))
    assert set(chain.revoked) == total.revoked == revoked


@pytest.mark.req("B10", "B11")
@pytest.mark.parametrize("case", _cases("succession.txt"))
def test_succession(case: Case) -> None:
    ours, theirs = _chain(case, "ours"), _chain(case, "theirs")
    replaces = one_of(case, "replaces") == "yes"
    outcome = trust.accept_entries(trust.from_chain(ours), ours.slot, 0, theirs.encoded)
    assert outcome.changed == replaces
    sums = [oracle.add_up(_bytes(case, name)) for name in ("ours", "theirs")]
    assert oracle.replaces(*sums) == replaces


@pytest.mark.parametrize("case", _cases("heads.txt"))
def test_heads(case: Case) -> None:
    state = trust.from_chain(_chain(case, "entry"))
    total = oracle.add_up(_bytes(case, "entry"))
    for head, verdict in zip(_bytes(case, "head"), all_of(case, "verdict"), strict=True):
        last = state.first.head
        assert oracle.judge_head(total, last.body if last else None, state.first.time, head) == (
            verdict
        )
        outcome = trust.accept_head(state, head, NOW)
        assert outcome.verdict == verdict
        state = outcome.state


@pytest.mark.req("D5")
@pytest.mark.parametrize("case", _cases("bundles.txt"))
def test_bundles(case: Case) -> None:
    (data,) = _bytes(case, "bundle")
    refused = all_of(case, "refused")
    if refused:
        with pytest.raises({"form": MalformedError, "signature": SignatureError}[refused[0]]):
            open_bundle(data)
        return
    bundle = open_bundle(data)
    assert bundle.deployment.hex() == one_of(case, "deployment")
    assert [chain.slot.hex() for chain in bundle.chains] == all_of(case, "slot")
    assert bundle.fingerprint == one_of(case, "fingerprint")
    assert bundle.signer.hex() == one_of(case, "signer")
    assert [f"{n}={text}" for n, text in bundle.settings.items()] == all_of(case, "setting")


def test_statements() -> None:
    ack, get = load(FOLDER / "statements.txt")
    (spki,), (signature,), (slot,) = (_bytes(ack, n) for n in ("spki", "signature", "slot"))
    (entry_id,) = _bytes(ack, "entry_id")
    component = trust.verify_ack(spki, signature, slot, int(one_of(ack, "n")), entry_id)
    assert component.hex() == one_of(ack, "component")
    message = b"anchorline-ack-v1\0" + slot + (1).to_bytes(8, "big") + entry_id
    assert oracle.signed(spki, signature, message)
    chain = _chain(get, "entry")
    given = answer(trust.from_chain(chain), chain.slot, int(one_of(get, "n")), entry_id)
    assert given.first_n == int(one_of(get, "first_n"))
    assert list(given.entries) == _bytes(get, "given")

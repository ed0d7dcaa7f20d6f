"""Write the vectors anew: `python -m tests.vectors.regenerate`.

Keys are derived from their number and sign without randomness (RFC 6979), so the files come out
the same, byte for byte, until a format changes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pki import trust
from pki.bundle import make_bundle, open_bundle
from pki.catchup import answer
from pki.entries import Entry, decode_entry
from pki.ledger import Chain, extend, read_chain
from pki.trust import accept_entries, accept_head, from_chain
from tests.pki import lineage
from tests.pki.lineage import ALIEN, NOW, forge_revoke, forge_rotate, honest, kid, kids
from tests.vectors.form import Case, dump

__all__ = ["FOLDER", "files"]

FOLDER = Path(__file__).parent


def chain_case(name: str, entries: Sequence[bytes]) -> Case:
    chain, problem = read_chain(entries)
    case: Case = [("case", name), *(("entry", entry.hex()) for entry in entries)]
    case.append(("valid", str(len(chain.entries) if chain else 0)))
    if chain is not None:
        case += [("id", entry.id.hex()) for entry in chain.entries]
        case += [("root", root.hex()) for root in chain.state.key_ids]
        case += [("revoked", root.key_id.hex()) for root in chain.roots if root in _gone(chain)]
        case += [("next", key.hex()) for key in chain.state.next]
    assert (problem is None) == name.startswith("valid: ")
    return case


def _gone(chain: Chain) -> list[object]:
    return [root for root in chain.roots if root.key_id in chain.revoked]


def chains() -> str:
    three = honest(3)
    entry = decode_entry(three.encoded[2])
    twins = Entry(
        entry.body,
        tuple(type(s)(s.spki, lineage.twin(s.value)) for s in entry.signatures),
    )
    longer = lineage.raw_body(three, 2, kids([0]))
    longer = longer[:3] + b"\xcc\x03" + longer[4:]
    one = lineage.genesis()

    def after(chain: Chain, *more: bytes) -> list[bytes]:
        return [*chain.encoded, *more]

    cases = [
        ("valid: GENESIS alone", list(one.encoded)),
        ("valid: two rotations", list(three.encoded)),
        ("valid: two rotations, root 0 revoked", list(honest(3, revoked=[0]).encoded)),
        ("valid: roots 0 and 2 revoked", list(honest(4, revoked=[0, 2]).encoded)),
        ("valid: twin signatures", [*three.encoded[:2], twins.encode()]),
        (
            "invalid: a second encoding of n",
            after(three, lineage.raw_entry(longer, [2])),
        ),
        ("invalid: an entry left out", [three.encoded[0], three.encoded[2]]),
        ("invalid: two entries exchanged", [three.encoded[n] for n in (0, 2, 1)]),
        (
            "invalid: root 0 names its own successor",
            after(one, forge_rotate(one, ALIEN, [0, ALIEN], more=17)),
        ),
        ("invalid: without the current root", after(one, forge_rotate(one, 1, [1], more=17))),
        ("invalid: without the new root", after(one, forge_rotate(one, 1, [0], more=17))),
        (
            "invalid: one more key is a root",
            after(three, forge_rotate(three, 3, [2, 3], more=0)),
        ),
        (
            "invalid: one more key is committed to already",
            after(three, forge_rotate(three, 3, [2, 3], more=9)),
        ),
        ("invalid: the current root revokes itself", after(three, forge_revoke(three, [2], [2]))),
        ("invalid: an older root revokes", after(three, forge_revoke(three, [0], [1]))),
        ("invalid: revoked roots out of order", after(three, forge_revoke(three, [1, 0], [2]))),
        (
            "invalid: an unknown kind",
            after(three, lineage.raw_entry(lineage.raw_body(three, 4, [bytes(32)]), [2])),
        ),
    ]
    comment = """
Chains: entries in order, how many of them are valid, and what these add up to.

entry    an entry as it travels
valid    how many from the first on are valid
id       entry id of each valid entry
root     KeyID of each root, in order
revoked  KeyIDs of revoked roots, in the order of the chain
next     the KeyIDs that are committed to, in order
"""
    return dump(comment, [chain_case(name, entries) for name, entries in cases])


def succession() -> str:
    genesis = lineage.genesis()
    tail, _ = extend(genesis, [forge_rotate(genesis, 1, [0, 1], more=ALIEN)])
    junk = lineage.revoke(lineage.revoke(honest(3), 0), 1)
    truth = honest(3, revoked=[0, 1])
    pairs = [
        ("extends", honest(2), honest(4), "yes"),
        ("the same", honest(2), honest(2), "no"),
        ("behind ours", honest(4), honest(2), "no"),
        ("an old unrevoked root's longer junk branch", honest(4), junk, "no"),
        ("a forged tail heard by a sleeper", genesis, tail, "yes"),
        ("the honest chain after a forged tail", tail, truth, "yes"),
        ("the forged tail once more", truth, tail, "no"),
    ]
    cases: list[Case] = []
    for name, ours, theirs, expected in pairs:
        outcome = accept_entries(from_chain(ours), ours.slot, 0, theirs.encoded)
        assert outcome.changed == (expected == "yes")
        cases.append(
            [
                ("case", name),
                *(("ours", entry.hex()) for entry in ours.encoded),
                *(("theirs", entry.hex()) for entry in theirs.encoded),
                ("replaces", expected),
            ]
        )
    comment = """
Succession: whether a valid chain replaces ours (rules 7 and 9).

ours, theirs  entries in order
replaces      yes or no
"""
    return dump(comment, cases)


def heads() -> str:
    chain = honest(3)
    sequences = [
        ("counts, is repeated, is replayed", [(2, 2, 100, True), (2, 2, 100, True)]),
        ("an older time", [(2, 2, 100, True), (2, 2, 99, True), (2, 2, 101, True)]),
        ("not the current root", [(1, 2, 100, True), (ALIEN, 2, 100, True)]),
        ("beyond ours", [(ALIEN, 3, 100, False)]),
        ("a fork", [(1, 1, 100, False), (ALIEN, 1, 100, False)]),
        ("an older entry", [(2, 1, 100, True)]),
    ]
    cases: list[Case] = []
    for name, sequence in sequences:
        state = from_chain(chain)
        case: Case = [("case", name), *(("entry", entry.hex()) for entry in chain.encoded)]
        for signer, n, time, real in sequence:
            entry_id = chain.entries[n].id if real else bytes(32)
            head = lineage.head(
                chain, signer, n=n, entry_id=entry_id, time=time, denied=kids([50, 51])
            )
            outcome = accept_head(state, head, NOW)
            state = outcome.state
            case += [("head", head.hex()), ("verdict", outcome.verdict)]
        cases.append(case)
    comment = """
Heads, heard one after the other by a component that has counted none (rule 12).

entry    its chain
head     a head as it travels
verdict  counted, same, behind, fork or ignored
"""
    return dump(comment, cases)


def bundles() -> str:
    chain = honest(3, revoked=[0])
    head = lineage.head(chain, 2, denied=kids([50]))
    settings = {"ServerNameList": "a.example", "port": "14172"}
    good = make_bundle(lineage.key(2), [chain], [head], settings)
    bundle = open_bundle(good)
    altered = bytearray(good)
    altered[len(good) // 2] ^= 1
    cases: list[Case] = [
        [
            ("case", "good"),
            ("bundle", good.hex()),
            ("deployment", bundle.deployment.hex()),
            ("slot", chain.slot.hex()),
            ("fingerprint", bundle.fingerprint),
            ("signer", kid(2).hex()),
            *(("setting", f"{name}={text}") for name, text in sorted(settings.items())),
        ],
        [("case", "one bit altered"), ("bundle", altered.hex()), ("refused", "signature")],
        [("case", "cut"), ("bundle", good[:-1].hex()), ("refused", "form")],
    ]
    comment = """
Init bundles.

bundle       as it travels
deployment, slot, fingerprint, signer, setting   what it says, where it is good
refused      form or signature
"""
    return dump(comment, cases)


def statements() -> str:
    chain = honest(2)
    spki, signature = trust.make_ack(lineage.key(60), chain.slot, 1, chain.last.id)
    given = answer(from_chain(honest(3)), chain.slot, 1, chain.last.id)
    cases: list[Case] = [
        [
            ("case", "acknowledgement"),
            ("spki", spki.hex()),
            ("signature", signature.hex()),
            ("slot", chain.slot.hex()),
            ("n", "1"),
            ("entry_id", chain.last.id.hex()),
            ("component", trust.verify_ack(spki, signature, chain.slot, 1, chain.last.id).hex()),
        ],
        [
            ("case", "answer to LEDGER_GET"),
            *(("entry", entry.hex()) for entry in honest(3).encoded),
            ("n", "1"),
            ("entry_id", chain.last.id.hex()),
            ("first_n", str(given.first_n)),
            *(("given", entry.hex()) for entry in given.entries),
        ],
    ]
    comment = """
Acknowledgements, and what a LEDGER_GET is answered with.
"""
    return dump(comment, cases)


FILES: dict[str, Callable[[], str]] = {
    "chains.txt": chains,
    "succession.txt": succession,
    "heads.txt": heads,
    "bundles.txt": bundles,
    "statements.txt": statements,
}


def files() -> dict[str, str]:
    """The content of each file."""
    return {name: make() for name, make in FILES.items()}


def main() -> None:
    for name, content in files().items():
        (FOLDER / name).write_text(content, encoding="ascii")


if __name__ == "__main__":
    main()

"""How entries travel: an answer fits its frame, and pieces make the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import encoding
from pki.catchup import ANSWER_FIELDS, MAX_ANSWER, Collection, answer
from pki.errors import MalformedError
from pki.ledger import MAX_CHAIN, MAX_ENTRIES, Chain
from pki.steps import Last
from pki.trust import TrustState, accept_entries, from_chain
from tests.pki import lineage
from tests.pki.lineage import ALIEN, forge_rotate, honest

FAR = honest(60, revoked=range(50))
for _ in range(60):
    FAR = lineage.rotate(FAR)


def _collect(asker: TrustState, responder: TrustState) -> tuple[Collection, int]:
    chain = asker.first.chain
    collection = Collection(chain.slot, chain.last)
    answers = 0
    while not collection.complete:
        after = collection.asks_after
        given = answer(responder, chain.slot, after.n, after.id)
        assert sum(map(len, given.entries)) + len(given.head or b"") + ANSWER_FIELDS <= MAX_ANSWER
        collection.receive(given.first_n, given.entries, more=given.more)
        answers += 1
    return collection, answers


@pytest.mark.parametrize("roots", [1, 2, 30, 60])
def test_a_catch_up_in_pieces_is_the_whole_chain(roots: int) -> None:
    asker = from_chain(honest(roots))
    collection, answers = _collect(asker, from_chain(FAR))
    assert answers > 1 or roots == 60
    assert collection.first_n == roots
    outcome = accept_entries(asker, FAR.slot, collection.first_n, collection.entries)
    assert outcome.state.chains == (FAR,)


def test_an_asker_of_another_branch_is_given_everything() -> None:
    branch = lineage.genesis()
    data = forge_rotate(branch, 1, [0, 1], more=ALIEN)
    asker = accept_entries(from_chain(branch), branch.slot, 1, [data]).state
    collection, _ = _collect(asker, from_chain(FAR))
    assert collection.first_n == 0
    outcome = accept_entries(asker, FAR.slot, 0, collection.entries)
    assert outcome.state.chains == (FAR,)


def test_who_is_up_to_date_is_given_the_head_alone() -> None:
    chain = honest(3)
    head = lineage.head(chain, 2)
    given = answer(from_chain(chain, head=head), chain.slot, chain.last.n, chain.last.id)
    assert (given.first_n, given.entries, given.more, given.head) == (3, (), False, head)


def test_who_is_ahead_is_given_everything_and_follows_nothing() -> None:
    ahead, behind = from_chain(honest(4)), from_chain(honest(3))
    collection, _ = _collect(ahead, behind)
    outcome = accept_entries(ahead, honest(3).slot, collection.first_n, collection.entries)
    assert (outcome.changed, outcome.problem) == (False, None)


def test_of_an_unknown_slot_nothing_is_said() -> None:
    chain = honest(3)
    state = from_chain(chain, head=lineage.head(chain, 2))
    given = answer(state, bytes(32), 0, bytes(32))
    assert (given.first_n, given.entries, given.more, given.head) == (0, (), False, None)


def test_a_head_that_names_an_older_entry_is_not_handed_on() -> None:
    chain, longer = honest(3), honest(4)
    state = from_chain(chain, head=lineage.head(chain, 2))
    state = accept_entries(state, chain.slot, 3, longer.encoded[3:]).state
    assert answer(state, chain.slot, 0, chain.slot).head is None


def _collection(chain: Chain) -> Collection:
    return Collection(chain.slot, chain.last)


@pytest.mark.parametrize("first", [-1, 1, 3, 2**40])
def test_an_answer_from_elsewhere_is_malformed(first: int) -> None:
    with pytest.raises(MalformedError):
        _collection(honest(2)).receive(first, [FAR.encoded[2]], more=False)


def test_a_second_answer_goes_on_where_the_first_ended() -> None:
    collection = _collection(honest(2))
    collection.receive(2, FAR.encoded[2:4], more=True)
    assert collection.asks_after == Last(3, FAR.entries[3].id)
    with pytest.raises(MalformedError):
        collection.receive(0, FAR.encoded[:2], more=False)


def test_an_answer_that_never_ends_is_malformed() -> None:
    with pytest.raises(MalformedError):
        _collection(honest(2)).receive(2, [], more=True)


def test_more_entries_than_a_chain_may_have() -> None:
    collection = _collection(honest(2))
    entry = FAR.encoded[-1]
    collection.receive(2, [entry] * (MAX_ENTRIES - 2), more=True)
    with pytest.raises(MalformedError):
        collection.receive(MAX_ENTRIES, [entry], more=False)


def test_more_bytes_than_a_chain_may_have() -> None:
    entry = encoding.pack([b"body", [[b"signer", bytes(60 * 1024)]]])
    most = MAX_CHAIN // len(entry)
    _collection(honest(2)).receive(2, [entry] * most, more=True)
    with pytest.raises(MalformedError, match="more entries"):
        _collection(honest(2)).receive(2, [entry] * (most + 1), more=True)


@given(st.lists(st.binary(max_size=80), max_size=4), st.booleans(), st.integers(-1, 4))
def test_any_answer_is_taken_or_malformed(entries: list[bytes], more: bool, first: int) -> None:
    """What is taken is judged later, by `accept_entries`, and never raises there."""
    collection = _collection(honest(2))
    try:
        collection.receive(first, entries, more=more)
    except MalformedError:
        return
    state = from_chain(honest(2))
    outcome = accept_entries(state, state.first.chain.slot, collection.first_n, collection.entries)
    assert not outcome.changed

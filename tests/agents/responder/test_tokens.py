"""Registration tokens: an honest client is never told, of two machines one is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.responder.records import ClientRecord
from agents.responder.tokens import MAC_BYTES, NONCE_BYTES, Given, give
from tests.support.clock import START


def counting() -> Callable[[int], bytes]:
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size)


def record(shown: bytes | None, out: bytes | None) -> ClientRecord:
    return ClientRecord(
        id=bytes(16),
        host="",
        claimed="",
        seen="",
        port=1,
        protocol=1,
        version="",
        last_registration=START,
        key_not_after=None,
        root=None,
        responder=bytes(16),
        token_out=out,
        token_shown=shown,
        lost_at=None,
        first_seen=START,
    )


class Responder:
    """What a responder has on record; a restart changes nothing of it."""

    def __init__(self) -> None:
        self.random = counting()
        self.record: ClientRecord | None = None

    def take(self, shown: bytes) -> bytes | None:
        """Take a registration; None: told to be a copy."""
        taken = give(self.record, shown, self.random)
        if taken is None:
            return None
        self.record = record(taken.shown, taken.out)
        return taken.token

    def good(self, shown: bytes) -> bytes:
        token = self.take(shown)
        assert token is not None
        return token


# --- What is shown


@pytest.mark.req("F1")
def test_the_first_token_is_believed() -> None:
    for before in (None, record(None, None)):
        for shown in (b"", b"of another responder"):
            assert give(before, shown, counting()) is not None


@pytest.mark.req("F1")
def test_each_token_is_good_for_the_next() -> None:
    responder = Responder()
    token, seen = b"", set[bytes]()
    for _ in range(20):
        token = responder.good(token)
        seen.add(token)
    assert len(seen) == 20


@pytest.mark.req("F1")
@pytest.mark.parametrize("which", range(5))
def test_all_that_were_given_for_one_are_good_until_one_is_shown(which: int) -> None:
    responder = Responder()
    shown = responder.good(b"")
    tokens = [responder.good(shown) for _ in range(5)]
    assert len(set(tokens)) == 5
    responder.good(tokens[which])
    for token in {shown, *tokens} - {tokens[which]}:
        assert responder.take(token) is None
    responder.good(tokens[which])  # its answer was lost


@pytest.mark.req("F1")
def test_what_is_on_record_does_not_grow() -> None:
    responder = Responder()
    shown = responder.good(b"")
    responder.good(shown)
    kept = responder.record
    for _ in range(100):
        responder.good(shown)
        assert responder.record == kept


@pytest.mark.req("F1")
def test_a_row_of_an_older_version_is_gone_on_with() -> None:
    old = record(b"s" * 16, b"o" * 16)
    for shown in (b"s" * 16, b"o" * 16):
        assert give(old, shown, counting()) is not None
    assert give(old, b"x" * 16, counting()) is None


@pytest.mark.parametrize("at", range(NONCE_BYTES + MAC_BYTES))
def test_a_token_that_was_altered_is_nobodys(at: int) -> None:
    responder = Responder()
    shown = responder.good(b"")
    responder.good(shown)
    token = bytearray(responder.good(shown))
    token[at] ^= 1
    assert responder.take(bytes(token)) is None


@given(st.binary(max_size=64))
@pytest.mark.req("F1")
def test_what_was_not_given_is_nobodys(token: bytes) -> None:
    assert give(record(b"s" * 24, b"o" * 16), token, counting()) is None


def test_cut_tokens_are_nobodys() -> None:
    responder = Responder()
    shown = responder.good(b"")
    for token in (responder.good(shown), responder.good(shown)):
        for end in range(1, len(token)):
            assert responder.take(token[:end]) is None
        assert responder.take(token + b"\0") is None


def test_tokens_are_in_no_repr() -> None:
    assert "c0ffee" not in repr(Given(b"c0ffee", b"c0ffee", b"c0ffee"))


# --- One client on a bad network


@dataclass
class Honest:
    """A client of which at most one request is not given up, and a network that keeps the rest."""

    responder: Responder
    token: bytes = b""
    flying: list[bytes] = field(default_factory=list)
    """What each request shows that was sent and not taken yet, the last one last."""
    waits: bool = False
    """Whether the last one is waited for: by a link that still stands."""

    def send(self) -> None:
        self.flying.append(self.token)
        self.waits = True

    def give_up(self) -> None:
        """The link is lost, or the client has been killed."""
        self.waits = False

    def arrive(self, place: int, *, kept: bool) -> None:
        """One of the requests is taken; its answer comes if somebody waits for it."""
        place %= len(self.flying)
        mine = self.waits and place == len(self.flying) - 1
        shown = self.flying.pop(place)
        token = self.responder.take(shown)
        # Only a request that is late by a round can be refused, and nobody waits for that one.
        assert token is not None or (not mine and shown != self.token)
        if mine:
            self.waits = False
            if kept and token is not None:
                self.token = token


STEPS = st.one_of(
    st.tuples(st.just("send"), st.just(0), st.just(True)),
    st.tuples(st.just("give up"), st.just(0), st.just(True)),
    # Not kept: the client was killed, or its disk was full.
    st.tuples(st.just("arrive"), st.integers(-3, 8), st.sampled_from([True, True, False])),
)


@given(st.lists(STEPS, max_size=60))
@pytest.mark.req("F1")
def test_an_honest_client_is_never_told_whatever_is_lost_or_late(
    story: list[tuple[str, int, bool]],
) -> None:
    client = Honest(Responder())
    for what, place, kept in story:
        if what == "send":
            client.send()
        elif what == "give up":
            client.give_up()
        elif client.flying:
            client.arrive(place, kept=kept)
    client.send()
    client.arrive(-1, kept=True)
    while client.flying:  # all that is late, after it
        client.arrive(0, kept=True)
        client.send()
        client.arrive(-1, kept=True)


# --- Two machines


def copied(heard: list[bool]) -> tuple[Responder, bytes]:
    """A responder and the token of a client that was copied after some registrations."""
    responder = Responder()
    token = b""
    for answer_came in heard:
        given_now = responder.good(token)
        token = given_now if answer_came else token
    return responder, token


@given(
    before=st.lists(st.booleans(), max_size=4),
    order=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40),
)
@pytest.mark.req("F1")
def test_when_both_of_two_machines_have_had_two_answers_one_has_been_told(
    before: list[bool], order: list[tuple[bool, bool]]
) -> None:
    responder, token = copied(before)
    tokens, answers = {True: token, False: token}, {True: 0, False: 0}
    for who, heard in order:
        answer = responder.take(tokens[who])
        if answer is None:
            return
        if heard:
            tokens[who] = answer
            answers[who] += 1
        assert min(answers.values()) < 2


@pytest.mark.req("F1")
@pytest.mark.parametrize("before", [[True], [True, True], [False], [True, False]], ids=str)
@pytest.mark.parametrize("order", sorted(set(permutations("AABB"))), ids="".join)
def test_two_machines_are_told_apart_by_their_second_registration(
    before: list[bool], order: tuple[str, ...]
) -> None:
    responder, token = copied(before)
    tokens = dict.fromkeys("AB", token)
    for who in order:
        answer = responder.take(tokens[who])
        if answer is None:
            return
        tokens[who] = answer
    pytest.fail("neither was told")

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from protocol.errors import LocalProtocolError
from protocol.messages import Done, HeadNotice, Ping, Pong, Refused
from protocol.requests import Requests


def test_a_request_gets_a_number_and_its_answer_finds_it() -> None:
    requests = Requests()
    first, second = (requests.open(Ping(id=n, trace="ab"), 5.0) for n in (1, 2))
    assert (first.call, second.call) == (1, 2)
    assert first.trace == "ab"
    call = requests.resolve(Pong(id=2, call=2))
    assert call is not None
    assert call.request == second
    assert len(requests) == 1
    assert requests.resolve(Pong(id=2, call=2)) is None


def test_refused_answers_anything_that_waits() -> None:
    requests = Requests()
    call = requests.open(HeadNotice(head=b"h"), 5.0).call
    assert requests.resolve(Refused(reason="busy", call=call)) is not None


@pytest.mark.parametrize("call", [0, 2, 99])
def test_an_answer_to_nothing_is_dropped(call: int) -> None:
    requests = Requests()
    requests.open(Ping(id=1), 5.0)
    assert requests.resolve(Pong(id=1, call=call)) is None
    assert len(requests) == 1


def test_an_answer_of_another_type_resolves_nothing() -> None:
    requests = Requests()
    call = requests.open(Ping(id=1), 5.0).call
    assert requests.resolve(Done(call=call)) is None
    assert requests.resolve(Pong(id=1, call=call)) is not None


def test_an_answer_after_the_deadline_is_dropped() -> None:
    requests = Requests()
    call = requests.open(Ping(id=1), 5.0).call
    assert requests.expire(4.999) == []
    assert [expired.number for expired in requests.expire(5.0)] == [call]
    assert requests.resolve(Pong(id=1, call=call)) is None


def test_the_next_timeout_is_the_earliest_deadline() -> None:
    requests = Requests()
    assert requests.next_timeout() is None
    requests.open(Ping(id=1), 7.0)
    requests.open(Ping(id=2), 5.0)
    assert requests.next_timeout() == 5.0
    requests.expire(6.0)
    assert requests.next_timeout() == 7.0


def test_only_requests_can_be_opened() -> None:
    with pytest.raises(LocalProtocolError, match="PONG is no request"):
        Requests().open(Pong(id=1), 5.0)


def test_numbers_are_not_used_again() -> None:
    requests = Requests()
    requests._last = 2**32 - 2
    assert requests.open(Ping(id=1), 5.0).call == 2**32 - 1
    with pytest.raises(LocalProtocolError, match="no call numbers left"):
        requests.open(Ping(id=2), 5.0)


class EachCallEndsOnce(RuleBasedStateMachine):
    """Whatever happens, a call is returned once, by one of the four endings."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = Requests()
        self.opened = 0
        self.ended: list[int] = []

    @rule(deadline=st.floats(0, 10))
    def ask(self, deadline: float) -> None:
        self.opened += 1
        assert self.requests.open(Ping(id=self.opened), deadline).call == self.opened

    @rule(number=st.integers(0, 20))
    def answer(self, number: int) -> None:
        call = self.requests.resolve(Pong(id=1, call=number))
        self.ended += [call.number] if call else []

    @rule(number=st.integers(0, 20))
    def cancel(self, number: int) -> None:
        call = self.requests.cancel(number)
        self.ended += [call.number] if call else []

    @rule(now=st.floats(0, 10))
    def time_passes(self, now: float) -> None:
        self.ended += [call.number for call in self.requests.expire(now)]
        due = self.requests.next_timeout()
        assert due is None or due > now

    @rule()
    def close(self) -> None:
        self.ended += [call.number for call in self.requests.close()]
        assert self.requests.next_timeout() is None

    @invariant()
    def once(self) -> None:
        assert len(set(self.ended)) == len(self.ended)
        assert len(self.ended) + len(self.requests) == self.opened


TestEachCallEndsOnce = EachCallEndsOnce.TestCase

"""Waiting before trying again."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime.backoff import MAX_RETRY_AFTER, STEADY, Backoff, Pace


def test_the_bound_doubles_up_to_the_last() -> None:
    backoff = Backoff(1.0, 10.0, uniform=lambda: 1.0)
    assert [backoff.next() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_nobody_comes_back_at_once_and_the_draw_decides_the_rest() -> None:
    draws = iter((0.0, 0.5))
    assert Backoff(1.0, 10.0, uniform=lambda: next(draws)).next() == 0.5
    assert Backoff(1.0, 10.0, uniform=lambda: next(draws)).next() == 0.75


def test_a_success_starts_again() -> None:
    backoff = Backoff(1.0, 10.0, uniform=lambda: 1.0)
    backoff.next()
    backoff.next()
    assert backoff.failures == 2
    backoff.reset()
    assert (backoff.failures, backoff.next()) == (0, 1.0)


def test_retry_after_is_a_lower_bound_and_still_spread() -> None:
    waits = {Backoff(1.0, 10.0).next(retry_after=30.0) for _ in range(50)}
    assert len(waits) > 1
    assert all(30.5 <= wait <= 31.0 for wait in waits)


def test_a_peer_cannot_silence_us_for_longer_than_it_is_believed() -> None:
    assert Backoff(1.0, 10.0).next(retry_after=1e9) <= MAX_RETRY_AFTER + 1.0


def test_two_that_fail_together_do_not_return_together() -> None:
    first, second = ([Backoff().next() for _ in range(20)] for _ in range(2))
    assert first != second


@given(first=st.floats(0.001, 10.0), factor=st.floats(1.0, 1000.0), attempts=st.integers(1, 200))
def test_every_wait_is_within_its_bounds(first: float, factor: float, attempts: int) -> None:
    last = first * factor
    backoff = Backoff(first, last)
    waits = [backoff.next() for _ in range(attempts)]
    assert all(first / 2 <= wait <= last * 1.000001 for wait in waits)
    assert all(later >= earlier / 2 - 1e-9 for earlier, later in pairwise(waits))


@pytest.mark.parametrize(("first", "last"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_bounds_that_make_no_sense_are_refused(first: float, last: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Backoff(first, last)


def test_a_link_that_has_stood_is_made_again_at_once() -> None:
    pace = Pace()
    assert [pace.after(STEADY) for _ in range(5)] == [0.0] * 5


def test_links_that_never_stand_are_made_more_and_more_slowly() -> None:
    pace = Pace()
    assert pace.after(0.1) == 0.0
    assert 0.25 <= pace.after(STEADY - 0.1) <= 0.5
    waits = [pace.after(0.1) for _ in range(10)]
    assert all(2.5 <= wait <= 5.0 for wait in waits[4:])
    pace.after(STEADY)
    assert pace.after(0.1) == 0.0
    assert 0.25 <= pace.after(0.1) <= 0.5

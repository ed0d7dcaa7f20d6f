"""When a root may be revoked: every row of the table, and its edges."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.server.coverage import Component, CoverageRow, State
from agents.server.gate import SETTLING, Confirmation, Judgement, Verdict, judge_revoke
from pki.ledger import Chain
from tests.pki import lineage as ledgers

CREATED = datetime(2026, 5, 1, tzinfo=UTC)
TWO, THREE = ledgers.honest(2), ledgers.honest(3)
ONE_GONE = ledgers.honest(3, revoked=[0])
SECOND = timedelta(seconds=1)


@pytest.mark.req("B2")
@pytest.mark.parametrize(
    ("chain", "root", "age", "in_doubt", "verdict", "why"),
    [
        (ledgers.genesis(), 0, timedelta(days=400), False, Verdict.REFUSED, "newest"),
        (ledgers.genesis(), 0, timedelta(days=400), True, Verdict.REFUSED, "create a new one"),
        (TWO, 1, timedelta(days=400), True, Verdict.REFUSED, "newest"),
        (TWO, 0, timedelta(), False, Verdict.ONLY_IN_DOUBT, "0 hours old"),
        (TWO, 0, timedelta(hours=30), False, Verdict.ONLY_IN_DOUBT, "30 hours old"),
        (TWO, 0, timedelta(days=3), False, Verdict.ONLY_IN_DOUBT, "3 days old"),
        (TWO, 0, SETTLING - SECOND, False, Verdict.ONLY_IN_DOUBT, "may take 7 days"),
        (TWO, 0, timedelta(), True, Verdict.GO, "newer"),
        (TWO, 0, SETTLING, False, Verdict.GO, "newer"),
        (THREE, 1, SETTLING, False, Verdict.GO, "newer"),
        (ONE_GONE, 0, timedelta(days=30), True, Verdict.REFUSED, "already"),
        (ONE_GONE, 1, timedelta(days=30), False, Verdict.GO, "newer"),
    ],
)
def test_the_table(
    chain: Chain, root: int, age: timedelta, in_doubt: bool, verdict: Verdict, why: str
) -> None:
    judgement = judge_revoke(
        chain,
        ledgers.kid(root),
        newest_created=CREATED,
        now=CREATED + age,
        in_doubt=in_doubt,
    )
    assert judgement.verdict is verdict
    assert why in judgement.why


def row(id: int) -> CoverageRow:
    """Somebody who has not moved."""
    component = Component("client", bytes([id]) * 16, f"c{id}", True, None)
    return CoverageRow(component, State.MOVING, "on the way")


def ids(*numbers: int) -> frozenset[bytes]:
    return frozenset(bytes([n]) * 16 for n in numbers)


@pytest.mark.req("B2", "B12")
@pytest.mark.parametrize(
    ("behind", "confirmed", "why"),
    [
        ([], None, None),
        ([1, 2], None, "2 have not moved yet: c1, c2"),
        (list(range(1, 8)), None, "7 have not moved yet: c1, c2, c3, c4, c5"),
        ([1, 2], Confirmation(), None),
        ([1, 2], Confirmation(ids(1, 2)), None),
        ([1], Confirmation(ids(1, 2)), None),
        ([1, 2], Confirmation(ids(1)), "1 have fallen behind since: c2"),
        ([2], Confirmation(ids(1)), "1 have fallen behind since: c2"),
        ([1], Confirmation(ids()), "1 have fallen behind since: c1"),
    ],
)
def test_who_has_not_moved(
    behind: list[int], confirmed: Confirmation | None, why: str | None
) -> None:
    judgement = judge_revoke(
        TWO,
        ledgers.kid(0),
        newest_created=CREATED,
        now=CREATED + SETTLING,
        in_doubt=False,
        behind=[row(id) for id in behind],
        confirmed=confirmed,
    )
    if why is None:
        assert judgement.verdict is Verdict.GO
    else:
        assert judgement == Judgement(Verdict.CONFIRM, why)


@pytest.mark.req("B2")
def test_a_confirmation_is_no_way_around_what_is_refused() -> None:
    judgement = judge_revoke(
        TWO,
        ledgers.kid(0),
        newest_created=CREATED,
        now=CREATED,
        in_doubt=False,
        behind=[row(1)],
        confirmed=Confirmation(),
    )
    assert judgement.verdict is Verdict.ONLY_IN_DOUBT


def test_a_clock_before_the_roots_own_date_is_no_way_around_the_wait() -> None:
    judgement = judge_revoke(
        TWO,
        ledgers.kid(0),
        newest_created=CREATED,
        now=CREATED - timedelta(days=30),
        in_doubt=False,
    )
    assert judgement.verdict is Verdict.ONLY_IN_DOUBT

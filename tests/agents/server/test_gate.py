"""When a root may be revoked: every row of the table, and its edges."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.server.gate import SETTLING, Verdict, judge_revoke
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


def test_a_clock_before_the_roots_own_date_is_no_way_around_the_wait() -> None:
    judgement = judge_revoke(
        TWO,
        ledgers.kid(0),
        newest_created=CREATED,
        now=CREATED - timedelta(days=30),
        in_doubt=False,
    )
    assert judgement.verdict is Verdict.ONLY_IN_DOUBT

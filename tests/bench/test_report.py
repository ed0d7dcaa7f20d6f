import json

import pytest

from bench.__main__ import chosen
from bench.process import BenchError
from bench.report import (
    Holds,
    Row,
    Samples,
    Target,
    as_json,
    exit_code,
    judge,
    quartiles,
    summarise,
    table,
)
from bench.rows import ROWS

AT_MOST = Target(0.8, at_most=True, stretch=0.65)
AT_LEAST = Target(0.45, at_most=False)


def row(*ratios: float, target: Target = AT_MOST, judged: bool = True) -> Row:
    samples = Samples(tuple(100 * ratio for ratio in ratios), (100.0,) * len(ratios))
    return summarise("handshake", "us", samples, target, against="C", judged=judged)


class TestJudge:
    @pytest.mark.parametrize(
        ("spread", "target", "expected"),
        [
            pytest.param((0.6, 0.7), AT_MOST, Holds.YES, id="below what it may be at most"),
            pytest.param((0.6, 0.8), AT_MOST, Holds.YES, id="up to the bound"),
            pytest.param((0.79, 0.81), AT_MOST, Holds.UNSURE, id="across"),
            pytest.param((0.81, 0.9), AT_MOST, Holds.NO, id="above"),
            pytest.param((0.45, 0.5), AT_LEAST, Holds.YES, id="from the bound on"),
            pytest.param((0.4, 0.5), AT_LEAST, Holds.UNSURE, id="across what it must be at least"),
            pytest.param((0.3, 0.4), AT_LEAST, Holds.NO, id="below what it must be at least"),
        ],
    )
    def test_a_spread_is_compared_as_a_whole(
        self, spread: tuple[float, float], target: Target, expected: Holds
    ) -> None:
        assert judge(spread, target) is expected

    def test_the_stretch_decides_nothing(self) -> None:
        assert judge((0.7, 0.79), AT_MOST) is Holds.YES


class TestSummary:
    def test_a_round_is_compared_with_itself_so_drift_does_not_count(self) -> None:
        # The machine becomes three times slower; the ratio of neighbours stays.
        samples = Samples((50.0, 100.0, 150.0), (100.0, 200.0, 300.0))
        found = summarise("r", "us", samples, AT_MOST, against="C")
        assert found.ratio == 0.5
        assert found.spread == (0.5, 0.5)
        assert found.holds is Holds.YES

    @pytest.mark.parametrize("spoiled", [0.01, 50.0])
    def test_one_spoiled_round_of_five_moves_nothing(self, spoiled: float) -> None:
        found = row(0.7, 0.7, 0.7, 0.7, spoiled)
        assert found.ratio == pytest.approx(0.7)
        assert found.spread == pytest.approx((0.7, 0.7))

    def test_the_median_and_the_middle_half(self) -> None:
        found = row(0.5, 0.6, 0.7, 0.9, 1.0)
        assert found.ratio == pytest.approx(0.7)
        assert found.spread == pytest.approx((0.6, 0.9))
        assert found.holds is Holds.UNSURE
        assert found.value == pytest.approx(70)
        assert found.against == "C: 100"

    def test_without_another_side_the_values_are_judged(self) -> None:
        found = summarise("m", "KiB", Samples((30.0, 31.0, 32.0)), Target(40, at_most=True))
        assert (found.value, found.ratio, found.against) == (31.0, None, None)
        assert found.spread == (30.5, 31.5)
        assert found.holds is Holds.YES

    def test_a_small_run_is_not_judged(self) -> None:
        assert row(9.0, judged=False).holds is Holds.RAN

    def test_one_round_has_no_spread(self) -> None:
        assert quartiles([3.0]) == (3.0, 3.0)

    def test_a_second_measuring_is_pooled(self) -> None:
        more = Samples((1.0,), (2.0,)) + Samples((3.0,), (4.0,))
        assert more == Samples((1.0, 3.0), (2.0, 4.0))
        assert Samples((1.0,)) + Samples((2.0,)) == Samples((1.0, 2.0))

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            pytest.param((), None, id="nothing was measured"),
            pytest.param((1.0,), (1.0, 2.0), id="a round without its other side"),
            pytest.param((0.0,), None, id="work that costs nothing was not done"),
            pytest.param((float("nan"),), None, id="no number"),
            pytest.param((1.0,), (0.0,), id="their work that costs nothing"),
        ],
    )
    def test_figures_that_cannot_be_are_refused(
        self, ours: tuple[float, ...], theirs: tuple[float, ...] | None
    ) -> None:
        with pytest.raises(ValueError, match=r"rounds|cannot be"):
            Samples(ours, theirs)

    def test_samples_of_different_kinds_are_not_pooled(self) -> None:
        with pytest.raises(ValueError, match="another side"):
            Samples((1.0,)) + Samples((1.0,), (1.0,))


class TestReport:
    def test_json_has_the_eight_fields_and_nothing_else(self) -> None:
        content = json.loads(as_json([row(0.5, 0.6, 0.71234)], quick=False))
        assert content["quick"] is False
        assert content["rows"] == [
            {
                "name": "handshake",
                "value": 60.0,
                "unit": "us",
                "against": "C: 100",
                "ratio": 0.6,
                "spread": [0.55, 0.6562],
                "target": "<= 0.8 (0.65)",
                "holds": True,
            }
        ]

    @pytest.mark.parametrize(
        ("one", "expected"),
        [
            (row(0.5), True),
            (row(0.9), False),
            (row(0.7, 0.75, 0.85, 0.9), "unsure"),
            (row(0.9, judged=False), None),
        ],
    )
    def test_what_holds_is_told(self, one: Row, expected: object) -> None:
        assert one.as_json()["holds"] == expected

    def test_a_row_that_does_not_hold_is_an_exit_code(self) -> None:
        assert exit_code([row(0.5), row(0.9)]) == 1

    def test_neither_unsure_nor_unjudged_is_an_exit_code(self) -> None:
        unsure, unjudged = row(0.7, 0.75, 0.85, 0.9), row(0.9, judged=False)
        assert unsure.holds is Holds.UNSURE
        assert exit_code([row(0.5), unsure, unjudged]) == 0

    def test_the_table_has_a_line_for_each_row_in_columns(self) -> None:
        head, first, second = table([row(0.5), row(0.9)]).splitlines()
        assert head.index("ratio") == first.index("0.50") == second.index("0.90")
        assert first.endswith("holds")
        assert second.endswith("NO")


class TestRows:
    def test_every_row_has_a_name_of_its_own_that_can_be_asked_for(self) -> None:
        names = [spec.name for spec in ROWS]
        assert len(set(names)) == len(names)
        assert [spec.name for spec in chosen(["storm", "issuance"])] == ["storm", "issuance"]
        assert chosen([]) == list(ROWS)

    def test_an_unknown_row_is_named(self) -> None:
        with pytest.raises(BenchError, match="no row strom; there are handshake-c"):
            chosen(["strom"])

    def test_figures_with_another_side_say_which(self) -> None:
        memory = {"resident-link", "resident-client", "idle-client", "catch-up"}
        alone = {f.name for spec in ROWS for f in spec.figures if f.against is None}
        assert alone == memory | {"storm-enrolled", "storm-memory"}

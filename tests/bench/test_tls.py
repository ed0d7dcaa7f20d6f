"""The two ways that `bench.tls` compares are there, and each costs something."""

from collections.abc import Callable

import pytest

from bench import tls


@pytest.mark.parametrize("way", tls.WAYS.values(), ids=tls.WAYS)
def test_both_sides_are_measured(
    way: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    way(tls.BATCH)
    word, *figures = capsys.readouterr().out.split()
    assert word == "done"
    assert len([one for one in figures if float(one) > 0]) == 2

"""The two ways that `bench.tls` compares are there, and each costs something."""

import re
from collections.abc import Callable

import pytest

from bench import tls


@pytest.mark.parametrize("way", tls.WAYS.values(), ids=tls.WAYS)
def test_both_sides_are_measured(
    way: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    way(tls.BATCH)
    sides = capsys.readouterr().out.split(", ")
    figures = [re.fullmatch(r"[a-z]+(?: [a-z]+)? (\d+(?:\.\d)?) us\n?", side) for side in sides]
    assert len([one for one in figures if one is not None and float(one[1]) > 0]) == 2

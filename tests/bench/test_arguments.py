"""Who names no row, way, kind or folder is told what there is."""

from collections.abc import Callable, Sequence

import pytest

from bench import __main__ as rows
from bench import deployment, servers, tls

MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "bench": lambda argv: rows.main({}, argv),
    "bench.deployment": deployment.main,
    "bench.servers": servers.main,
    "bench.tls": tls.main,
}


@pytest.mark.parametrize("name", MAINS)
def test_help_is_given_and_nothing_is_started(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        MAINS[name](["--help"])
    assert ended.value.code == 0
    assert f"usage: python -m {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("bench", ["storm"]),
        ("bench.deployment", []),
        ("bench.deployment", ["/proc/there", "12"]),
        ("bench.servers", []),
        ("bench.servers", ["foo", "/proc"]),
        ("bench.servers", ["raw", "/proc/there"]),
        ("bench.tls", []),
        ("bench.tls", ["calls", "many"]),
    ],
)
def test_what_is_not_known_is_an_error_that_says_so(
    name: str, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        MAINS[name](argv)
    assert ended.value.code == 2
    assert f"python -m {name}: error: " in capsys.readouterr().err

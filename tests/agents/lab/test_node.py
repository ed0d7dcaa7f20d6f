import subprocess
import sys
from pathlib import Path

import pytest

from agents.lab import node
from agents.lab.clock import to_micros
from agents.lab.layout import make_layout
from agents.lab.page import Page
from agents.runtime.clock import SystemClock, monotonic_ns
from agents.runtime.errors import Exit


def test_a_state_directory_of_somebody_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_layout(tmp_path, 4, port=15000)
    layout.prepare()
    place = layout.inside[0]
    (place.state / ".made-by-anchorline-lab").unlink()
    page = Page.create(to_micros(SystemClock().now()), monotonic_ns())
    try:
        assert node.run_node("client", place.config, page.fd, 0) == Exit.REFUSED
    finally:
        page.close()
    said = capsys.readouterr().err
    assert "was not made by a lab" in said
    assert "anchorline <role> run" in said
    assert [path.name for path in place.state.iterdir()] == []


def test_no_such_role(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert node.run_node("root", tmp_path / "x.toml", 0, 0) != 0
    assert "role is 'root'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["client"], ["client", "a.toml", "3", "x"]])
def test_by_hand_it_says_who_starts_it(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert node.main(words) == Exit.USAGE
    assert "not by hand" in capsys.readouterr().err


def test_a_page_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_layout(tmp_path, 4, port=15000)
    layout.prepare()
    (tmp_path / "page").write_bytes(b"no page")
    assert node.main(["client", str(layout.inside[0].config), str(tmp_path / "page"), "0"]) != 0
    assert "not a page of a lab" in capsys.readouterr().err


def test_no_program_but_the_labs_has_another_clock() -> None:
    words = ("agents.cli.roles", "agents.client.app", "agents.server.app")
    code = f"import sys; import {', '.join(words)}; print([m for m in sys.modules if '.lab' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

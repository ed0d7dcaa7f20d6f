from pathlib import Path

import pytest

from tools.requirements import Claim, Row, claims_in, compare, main, parse_rows

TABLE = """\
## A. Keys
| id | behaviour | state |
| --- | --- | --- |
| A1 | A key is made. | done |
| A2 | A key is named. | open |
"""


def repository(root: Path, table: str, test: str) -> Path:
    (root / "docs").mkdir()
    (root / "docs/requirements.md").write_text(table, encoding="utf-8")
    (root / "tests").mkdir()
    (root / "tests/test_keys.py").write_text(test, encoding="utf-8")
    return root


def claim(ids: str) -> str:
    return f"import pytest\n\n@pytest.mark.req({ids})\ndef test_key() -> None: ...\n"


def test_rows_are_read_from_every_table() -> None:
    rows, problems = parse_rows(TABLE)
    assert rows == [Row("A1", "done"), Row("A2", "open")]
    assert problems == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param("| A1 | Again. | open |", "A1 stands twice", id="twice"),
        pytest.param("| A3 | A key. | soon |", "open or done", id="unknown state"),
        pytest.param("| a3 | A key. | open |", "open or done", id="no id"),
        pytest.param("| A3 |  | open |", "open or done", id="no behaviour"),
        pytest.param("| A3 | A key. |", "open or done", id="no state"),
        pytest.param("| A3 | A key. | part |", "open or done", id="part of what"),
    ],
)
def test_a_row_of_another_form_is_a_problem(line: str, problem: str) -> None:
    rows, problems = parse_rows(TABLE + line)
    assert len(rows) == 2
    assert len(problems) == 1
    assert problem in problems[0]
    assert "line 6" in problems[0]


def test_a_document_without_rows_is_a_problem() -> None:
    assert parse_rows("# Requirements\n") == ([], ["no row found"])


@pytest.mark.parametrize(
    ("source", "ids"),
    [
        pytest.param(claim('"A1", "A2"'), ["A1", "A2"], id="decorator"),
        pytest.param('pytestmark = [pytest.mark.req("A2")]', ["A2"], id="module"),
        pytest.param('pytest.param(1, marks=mark.req("A1"))', [], id="another name for mark"),
        pytest.param('pytest.param(1, marks=pytest.mark.req("A1"))', ["A1"], id="parameter"),
        pytest.param("pytest.mark.req(ROW)", [None], id="a name"),
        pytest.param("pytest.mark.req()", [None], id="empty"),
        pytest.param("pytest.mark.req(1)", [None], id="a number"),
        pytest.param('pytest.mark.needs("A1")', [], id="another mark"),
    ],
)
def test_claims_are_the_literals_given_to_the_mark(source: str, ids: list[str | None]) -> None:
    assert [found.id for found in claims_in(source, "tests/test_keys.py")] == ids


def test_a_claim_knows_its_place() -> None:
    (found,) = claims_in(claim('"A1"'), "tests/test_keys.py")
    assert found == Claim("A1", "tests/test_keys.py:3")


def test_every_disagreement_is_reported() -> None:
    rows = [Row("A1", "done"), Row("A2", "done"), Row("A3", "open")]
    claims = [Claim("A1", "t:1"), Claim("Z9", "t:2"), Claim(None, "t:3")]
    assert compare(rows, claims) == [
        "t:2: no row Z9 in docs/requirements.md",
        "t:3: pytest.mark.req takes ids as literals",
        "A2 is done, but no test names it",
    ]


def test_a_row_that_is_done_in_part_needs_a_test_too() -> None:
    rows, problems = parse_rows(TABLE + "| A3 | A key. | part: one of two |\n")
    assert problems == []
    assert rows[-1] == Row("A3", "part")
    assert compare(rows[-1:], []) == ["A3 is done in part, but no test names it"]


def test_rows_done_in_part_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = TABLE + "| A3 | A key. | part: one of two |\n"
    assert main(repository(tmp_path, table, claim('"A1", "A3"'))) == 0
    assert capsys.readouterr().out == "requirements: 1 done, 1 in part: A3, 1 open: A2\n"


def test_open_rows_are_printed_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(repository(tmp_path, TABLE, claim('"A1"'))) == 0
    assert capsys.readouterr().out == "requirements: 1 done, 1 open: A2\n"


@pytest.mark.parametrize(
    "test",
    [
        pytest.param(claim('"A2"'), id="done without a test"),
        pytest.param(claim('"A1", "A9"'), id="unknown id"),
    ],
)
def test_a_disagreement_fails(
    test: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(repository(tmp_path, TABLE, test)) == 1
    assert capsys.readouterr().err.startswith("requirements: ")

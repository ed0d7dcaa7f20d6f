"""The examples of docs/spec are real: their bytes are what is written and read today."""

import re
from pathlib import Path

import pytest

from pki import heads, trust
from pki.bundle import make_bundle, open_bundle
from tests.pki import lineage
from tests.pki.lineage import NOW, honest

SPEC = Path(__file__).parents[2] / "docs" / "spec"
CHAIN = honest(2, revoked=[0])
HEAD = lineage.head(CHAIN, 1, time=1_700_000_000)
BUNDLE = make_bundle(lineage.key(1), [CHAIN], [HEAD], {"port": "14172"})
HEX = re.compile(r"^    ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:$|  )")


def _examples(page: str) -> list[bytes]:
    """The bytes of each block of code that shows any; a row of dots divides a block."""
    blocks = re.findall(r"```\n(.*?)```", (SPEC / page).read_text(encoding="utf-8"), re.DOTALL)
    parts = [part for block in blocks for part in block.split("    ...\n")]
    shown = [
        "".join(m[1] for line in part.splitlines() if (m := HEX.match(line))) for part in parts
    ]
    return [bytes.fromhex(text) for text in shown if text]


def test_the_ledger_s_examples_are_an_entry_and_its_head() -> None:
    assert _examples("ledger.md") == [CHAIN.encoded[-1], HEAD]
    assert CHAIN.last.id.hex() in (SPEC / "ledger.md").read_text(encoding="utf-8")
    assert heads.parse_head(HEAD).head.entry_id == CHAIN.last.id
    outcome = trust.accept_head(trust.from_chain(CHAIN), HEAD, NOW)
    assert outcome.verdict is trust.Verdict.COUNTED


def test_the_bundle_s_example_is_the_beginning_and_the_end_of_one() -> None:
    first, last = _examples("bundle.md")
    assert BUNDLE.startswith(first)
    assert BUNDLE.endswith(last)
    assert open_bundle(BUNDLE).fingerprint in (SPEC / "bundle.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["ledger.md", "bundle.md"])
def test_a_page_has_an_example_and_numbered_demands(page: str) -> None:
    text = (SPEC / page).read_text(encoding="utf-8")
    assert "## Example" in text
    assert re.search(r"^1\. .*?MUST", text, re.MULTILINE | re.DOTALL)

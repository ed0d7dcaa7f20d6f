"""Which entry made which root."""

import pytest

from agents.server import lineage
from tests.pki import lineage as ledgers


def test_places_and_entries_differ_once_something_was_revoked() -> None:
    chain = ledgers.revoke(ledgers.honest(3), 0)  # entries: root 0, 1, 2, revoke
    chain = ledgers.rotate(chain)
    kids = ledgers.kids(range(4))
    assert [lineage.place(chain, kid) for kid in kids] == [0, 1, 2, 3]
    assert [lineage.made_by(chain, kid) for kid in kids] == [0, 1, 2, 4]


def test_a_root_of_no_chain_has_no_place() -> None:
    chain = ledgers.honest(2)
    for kid in (ledgers.kid(2), ledgers.kid(ledgers.ALIEN)):  # 2 is promised, and not yet made
        with pytest.raises(KeyError, match=kid.hex()):
            lineage.place(chain, kid)
        with pytest.raises(KeyError):
            lineage.made_by(chain, kid)


def test_audits_are_those_of_every_entry() -> None:
    assert lineage.audits(ledgers.honest(3)) == {ledgers.AUDIT}

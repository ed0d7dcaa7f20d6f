"""One rule for fingerprints of deployments."""

import pytest

from agents.member.fingerprints import same_deployment

OWN = "5d" * 32


@pytest.mark.req("D5")
@pytest.mark.parametrize(
    ("expected", "same"),
    [
        (OWN, True),
        (OWN.upper(), True),
        (f" {OWN}\n", True),
        (OWN[:-1], False),
        (OWN + "0", False),
        ("5e" + OWN[2:], False),
        ("", False),
    ],
)
def test_which_texts_name_a_deployment(expected: str, same: bool) -> None:
    assert same_deployment(expected, OWN) is same

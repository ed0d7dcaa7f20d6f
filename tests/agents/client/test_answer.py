"""What is taken of the answer to a registration, and what no honest responder says."""

from typing import Any

import pytest

from agents.client.answer import fault_of
from pki.rotation import CLIENT_WINDOW
from protocol.messages import Neighbour, Registered
from tests.fuzz.names import NAMES

pytestmark = pytest.mark.req("E4")

OURS, ONE, OTHER = (bytes([n] * 16) for n in range(3))


def at(address: str, *, id: bytes = ONE, port: int = 1) -> Neighbour:
    return Neighbour(id=id, address=address, port=port)


def fault(**fields: Any) -> str | None:  # noqa: ANN401
    return fault_of(Registered(token=b"t", observed="192.0.2.1", **fields), id=OURS)


@pytest.mark.parametrize("address", ["127.0.1.2", "2001:db8::1", "::1", "10.0.0.1"])
def test_addresses(address: str) -> None:
    assert fault(forward=at(address)) is None
    assert fault(backward=at(address), forward=at(address, id=OTHER)) is None


@pytest.mark.parametrize("address", ["", "localhost", "127.1", "127.0.0.1:1", "fe80::1%lo", " ::1"])
def test_what_is_no_address(address: str) -> None:
    for side in ("forward", "backward"):
        assert fault(**{side: at(address)}) == f"a neighbour at {address!r}"


@pytest.mark.parametrize("what", NAMES)
def test_names_are_no_addresses_and_are_cut_and_quoted(what: str) -> None:
    found = fault(forward=at(NAMES[what]))
    assert found is not None
    assert found.isascii()
    assert found.isprintable()
    assert len(found) < 120


def test_a_neighbour_listens_somewhere() -> None:
    assert fault(forward=at("127.0.1.2", port=0)) == "a neighbour at port 0"


def test_a_neighbour_is_another_client() -> None:
    assert fault(backward=at("127.0.1.2", id=OURS)) == "a neighbour that is ourselves"
    both = at("127.0.1.2")
    assert fault(forward=both, backward=both) == "one neighbour on both sides"


def test_settings_that_are_known_have_a_meaning() -> None:
    assert fault(settings={CLIENT_WINDOW: "4"}) is None
    for wrong in ("", "0", "-1", "8761", "9" * 4096, "4.0", "\N{SUPERSCRIPT TWO}", *NAMES.values()):
        found = fault(settings={CLIENT_WINDOW: wrong})
        assert found is not None
        assert CLIENT_WINDOW in found
        assert len(found) < 200


def test_settings_that_are_not_known_are_a_newer_responders() -> None:
    assert fault(settings={name: name for name in NAMES.values()}) is None

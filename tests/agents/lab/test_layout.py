from collections.abc import Iterable
from pathlib import Path

import pytest

from agents.cli.roles import config_class
from agents.lab.layout import (
    MARKER,
    MIN_CLIENTS,
    check_marker,
    client_place,
    free_port,
    make_layout,
)
from agents.runtime.config import load
from agents.runtime.errors import StateError, UnavailableError


def test_twelve_clients_are_eight_inside_in_two_subnets_and_four_outside(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, 12, port=15000)
    assert [len(chain) for chain in layout.chains()] == [4, 4, 4]
    assert [place.name for place in layout.inside] == [f"client-{n:02}" for n in range(1, 9)]
    assert [place.address for place in layout.outside] == [f"127.0.9.{n}" for n in range(11, 15)]


@pytest.mark.parametrize("clients", [MIN_CLIENTS, 5, 7, 11, 13, 60, 300])
def test_there_is_always_a_chain_with_a_middle_and_somebody_outside(
    tmp_path: Path, clients: int
) -> None:
    layout = make_layout(tmp_path, clients, port=15000)
    assert len(layout.clients) == clients
    assert len({place.name for place in layout.places}) == clients + 3
    assert len({place.address for place in layout.clients}) == clients
    assert max(len(chain) for chain in layout.chains()) >= 3
    assert layout.outside


@pytest.mark.parametrize("clients", [0, 3, 301])
def test_a_number_of_clients_out_of_range(tmp_path: Path, clients: int) -> None:
    with pytest.raises(ValueError, match=f"{clients} clients"):
        make_layout(tmp_path, clients, port=15000)


def test_each_configuration_is_one_that_the_program_takes(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, 4, port=15000)
    layout.prepare()
    for place in layout.places:
        config = load(place.config, config_class(place.role))
        assert config.state == place.state
        assert config.log == place.log


def test_the_lab_leaves_validities_and_windows_alone(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, 4, port=15000)
    words = {name for place in layout.places for name in place.options}
    assert not [w for w in words if "duration" in w or "window" in w or "validity" in w]


def test_a_newcomer_stands_at_the_end_of_the_first_chain(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, 12, port=15000)
    newcomer = layout.newcomer()
    assert newcomer.name == "client-13"
    joined = layout.with_client(newcomer)
    assert joined.chains()[0] == (*layout.chains()[0], newcomer)
    assert joined.chains()[1:] == layout.chains()[1:]


def test_a_state_directory_of_the_lab_is_marked(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, 4, port=15000)
    layout.prepare()
    check_marker(layout.server.state)
    assert (layout.server.state / MARKER).is_file()
    assert layout.server.state.stat().st_mode & 0o077 == 0


def test_another_state_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="was not made by a lab"):
        check_marker(tmp_path)


def test_a_client_of_the_zone_server_knows_no_other_address(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, 4, port=15000)
    place = client_place(layout, "x", "127.0.9.40", layout.zone)
    assert place.options["servers"] == ["127.0.9.1:15000"]


def test_the_first_port_that_is_free_everywhere_with_the_next_for_the_hub() -> None:
    asked: list[tuple[tuple[str, ...], int]] = []

    def is_free(addresses: Iterable[str], port: int) -> bool:
        asked.append((tuple(addresses), port))
        return port not in (15000, 15003)

    assert free_port(["127.0.0.1", "127.0.1.11"], first=15000, is_free=is_free) == 15004
    assert asked[-1] == (("127.0.9.1",), 15005)


def test_no_port_is_free() -> None:
    with pytest.raises(UnavailableError, match="no port"):
        free_port(["127.0.0.1"], is_free=lambda addresses, port: False)

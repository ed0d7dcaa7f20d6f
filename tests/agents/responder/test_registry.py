"""The registry: who is there, and who stands beside whom."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.responder import neighbourhoods
from agents.responder.neighbourhoods import Member, Plan, Policy
from agents.responder.records import ClientRecord
from agents.responder.registry import LOSS_INTERVAL, LOSSES, MISSED
from pki import certificates
from pki.peers import Peer
from protocol.messages import Register, Registered
from tests.agents.responder.line import (
    LONGEST,
    RESPONDER,
    SETTINGS,
    ZONE,
    Client,
    Line,
    neighbours,
    refused,
)
from tests.support.clock import START
from tests.support.components import Component

# --- what is said, and what is known


@pytest.mark.req("F2")
async def test_a_stranger_is_asked_to_say_everything_once(line: Line) -> None:
    client = line.client("127.0.1.11")
    assert refused(await client.asks(Register()), "full").retry_after == 0.0
    assert line.registry.rows() == []
    await client.says(full=True)
    await client.says()


@pytest.mark.req("F2")
async def test_changes_only_change_what_they_name(line: Line) -> None:
    (client,) = await line.clients("127.0.1.11")
    before = client.record
    answer = await client.asks(Register(token=client.token, version="1.1"))
    assert isinstance(answer, Registered)
    after = client.record
    assert after.version == "1.1"
    assert (after.host, after.claimed, after.port) == (before.host, before.claimed, before.port)
    assert after.first_seen == before.first_seen


@pytest.mark.req("F3")
async def test_everything_that_is_said_or_seen_of_a_client_is_known(line: Line) -> None:
    client = line.client("127.0.1.11")
    message = Register(host="a", version="1.0", port=4001, address="127.0.1.12", full=True)
    answer = await client.asks(message, remote="127.0.1.13")
    assert isinstance(answer, Registered)
    assert answer.observed == "127.0.1.13"
    record = client.record
    assert (record.host, record.version, record.port) == ("a", "1.0", 4001)
    assert (record.claimed, record.seen) == ("127.0.1.12", "127.0.1.13")
    assert (record.last_registration, record.first_seen) == (START, START)
    assert record.responder == RESPONDER
    row = line.registry.row(client.id)
    assert row is not None
    assert row.present
    assert row.position is not None
    assert row.position.chain == "127.0.1.0/24#0"


@pytest.mark.req("F4")
async def test_root_and_expiry_are_what_the_link_proves_not_what_it_says(line: Line) -> None:
    client = line.client("127.0.1.11")
    lie = Register(
        host="a",
        port=4000,
        address="127.0.1.11",
        full=True,
        root=b"\xff" * 32,
        key_not_after=2**33,
    )
    assert isinstance(await client.asks(lie), Registered)
    assert client.record.root == certificates.read(line.root).key_id
    assert client.record.key_not_after == client.peer.leaf.not_after


async def test_who_registers_is_who_the_link_proves(line: Line) -> None:
    one, two = line.client("127.0.1.11"), line.client("127.0.1.12")
    await one.says(full=True)
    await two.says(full=True)
    assert one.record.claimed == "127.0.1.11"
    assert {row.record.id for row in line.registry.rows()} == {one.id, two.id}


async def test_the_settings_of_clients_come_with_every_answer(line: Line) -> None:
    (client,) = await line.clients("127.0.1.11")
    assert (await client.says()).settings == SETTINGS


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("somewhere.example", 4000),
        ("127.0.1.256", 4000),
        ("127.0.1.11/24", 4000),
        ("127.0.1.11", 0),
        ("127.0.1.11\n", 4000),
    ],
)
async def test_an_address_that_is_none_is_refused_and_costs_nobody_a_neighbour(
    line: Line, address: str, port: int
) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    bad = line.client("127.0.1.13")
    message = Register(host="bad", port=port, address=address, full=True)
    refused(await bad.asks(message), "address")
    assert line.registry.row(bad.id) is None
    assert neighbours(await one.says()) == (None, "127.0.1.12")
    # Nor does one that was good and becomes bad.
    refused(await two.asks(Register(token=two.token, port=port, address=address)), "address")
    assert two.record.claimed == "127.0.1.12"
    assert neighbours(await one.says()) == (None, "127.0.1.12")


async def test_without_a_claim_the_address_that_was_seen_counts(line: Line) -> None:
    client = line.client("127.0.1.11")
    message = Register(host="a", port=4000, address="", full=True)
    assert isinstance(await client.asks(message, remote="127.0.7.7"), Registered)
    row = line.registry.row(client.id)
    assert row is not None
    assert row.position is not None
    assert row.position.chain == "127.0.7.0/24#0"


# --- the line


@pytest.mark.req("G1", "G2")
async def test_neighbours_are_told_and_the_ends_are_leaders(line: Line) -> None:
    clients = await line.clients("127.0.1.13", "127.0.1.11", "127.0.1.12", "127.0.2.11")
    answers = [await client.says() for client in clients]
    assert [neighbours(answer) for answer in answers] == [
        ("127.0.1.12", None),
        (None, "127.0.1.12"),
        ("127.0.1.11", "127.0.1.13"),
        (None, None),
    ]
    assert [answer.leader for answer in answers] == [True, True, False, True]


@pytest.mark.req("G1")
async def test_a_port_that_changes_is_told_to_the_neighbour(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    before = await one.says()
    two.port = 5000
    await two.says(full=True)
    after = await one.says()
    assert after.forward is not None
    assert after.forward.port == 5000
    assert after.revision > before.revision


async def test_a_registration_that_changes_nothing_makes_no_new_plan(line: Line) -> None:
    one, _ = await line.clients("127.0.1.11", "127.0.1.12")
    revision = (await one.says()).revision
    for _ in range(5):
        line.clock.move_network(30)
        assert (await one.says()).revision == revision


# --- presence


@pytest.mark.req("F3", "G1")
async def test_presence_is_a_matter_of_network_time(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    line.clock.move(timedelta(days=300))  # a lab leaps; nobody has gone
    assert neighbours(await one.says()) == (None, "127.0.1.12")
    line.clock.move_network(MISSED * LONGEST - 1)
    assert two.present
    assert neighbours(await one.says()) == (None, "127.0.1.12")
    line.clock.move_network(1)
    assert neighbours(await one.says()) == (None, None)
    row = line.registry.row(two.id)
    assert row is not None
    assert (row.present, row.position) == (False, None)
    await two.says()
    assert neighbours(await one.says()) == (None, "127.0.1.12")


async def test_after_a_restart_everybody_gets_time_to_register_again(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    line.clock.move_network(MISSED * LONGEST - 1)
    line.registry = line.opened()
    await line.registry.load()
    line.clock.move_network(2)
    assert neighbours(await one.says()) == (None, "127.0.1.12")
    line.clock.move_network(MISSED * LONGEST - 2)
    assert not two.present


def test_a_client_that_nobody_knows_has_no_row(line: Line) -> None:
    assert line.registry.row(bytes(16)) is None


@pytest.mark.req("F3")
async def test_who_goes_silent_is_said_once(line: Line, lines: list[dict[str, object]]) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    (other,) = await line.clients("127.0.2.11")
    line.registry.changed = set()
    for _ in range(4):
        line.clock.move_network(MISSED * LONGEST / 2)
        await other.says()  # of another subnet: the silent are found all the same
        await one.says()
    said = [line for line in lines if line["event"] == "client.silent"]
    assert [(one["client"], one["host"]) for one in said] == [(two.id.hex(), two.record.host)]
    assert two.id in line.registry.changed
    assert neighbours(await one.says()) == (None, None)
    # It is back, and goes again.
    await two.says()
    assert neighbours(await one.says()) == (None, "127.0.1.12")
    line.clock.move_network(MISSED * LONGEST)
    line.registry.look()
    line.registry.look()
    silent = [line["client"] for line in lines if line["event"] == "client.silent"]
    assert silent.count(two.id.hex()) == 2


# --- plan revisions


async def test_a_look_that_finds_nobody_silent_makes_no_new_plan(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    revision = (await one.says()).revision
    for _ in range(8):
        line.clock.move_network(LONGEST)
        await two.says()
        assert (await one.says()).revision == revision


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many members each plan that is made has."""
    sizes: list[int] = []
    real = neighbourhoods.plan

    def counted(members: Iterable[Member], policy: Policy | None = None) -> Plan:
        members = list(members)
        sizes.append(len(members))
        return real(members, policy)

    monkeypatch.setattr(neighbourhoods, "plan", counted)
    return sizes


async def test_a_newcomer_costs_what_its_subnet_has(line: Line, planned: list[int]) -> None:
    await line.clients(*(f"127.0.{net}.{host}" for net in range(1, 6) for host in range(1, 9)))
    planned.clear()
    (newcomer,) = await line.clients("127.0.3.200")
    assert planned == [9]
    planned.clear()
    for _ in range(3):
        await newcomer.says()
        line.registry.rows()
    assert planned == []
    newcomer.address = "127.0.4.200"
    await newcomer.says(full=True)
    line.registry.rows()
    assert sorted(planned) == [8, 9]  # the one that it left, the one that it came to


async def test_a_client_is_not_looked_at_before_it_can_be_silent(line: Line) -> None:
    """A registration looks at those whose time is up, not at all."""
    await line.clients(*(f"127.0.{net}.{host}" for net in range(1, 6) for host in range(1, 9)))
    (client,) = await line.clients("127.0.9.1")
    looked: list[bytes] = []
    real = line.registry._silent_at

    def counted(id: bytes) -> float:
        looked.append(id)
        return real(id)

    line.registry._silent_at = counted  # type: ignore[method-assign]
    line.clock.move_network(MISSED * LONGEST - 1)
    await client.says()
    assert set(looked) <= {client.id}


POOL = 7
"""Clients of the drawn stories: more than a chain of these holds."""
ADDRESSES = [f"127.0.{net}.{host}" for net in (1, 2) for host in (5, 9, 200)] + ["fd00::1"]
CLIENTS = st.integers(0, POOL - 1)
STORY = st.lists(
    st.one_of(
        st.tuples(st.just("says"), CLIENTS, st.sampled_from(ADDRESSES)),
        st.tuples(st.just("waits"), CLIENTS, st.just("")),
        st.tuples(st.just("loses"), CLIENTS, st.just("")),
        st.tuples(st.just("moves out"), CLIENTS, st.just("")),
        st.tuples(st.just("restarts"), st.just(0), st.just("")),
    ),
    max_size=25,
)
POLICY = Policy(cap=2)


@cache
def pool() -> tuple[Peer, ...]:
    line = Line()
    return tuple(line.peer(Component().id) for _ in range(POOL))


@given(STORY)
@pytest.mark.req("G1")
def test_a_plan_of_subnets_is_that_part_of_the_plan_of_all(
    story: list[tuple[str, int, str]],
) -> None:
    """Whatever happens, everybody stands where one plan of all who are present puts him."""

    async def told() -> None:
        line = Line(POLICY)
        clients = [Client(line, peer, "127.0.1.1", 4000) for peer in pool()]
        for what, number, address in story:
            await happens(line, clients, what, number, address)
            rows = line.registry.rows()
            ours = [row for row in rows if row.present and row.record.responder == RESPONDER]
            members = [Member(r.record.id, r.record.claimed, r.record.port) for r in ours]
            whole = neighbourhoods.plan(members, POLICY)
            assert {r.record.id: r.position for r in rows if r.position} == whole.positions

    asyncio.run(told())


async def happens(line: Line, clients: list[Client], what: str, number: int, address: str) -> None:
    client = clients[number]
    if what == "says":
        client.address = address
        await client.says(full=True)
    elif what == "waits":
        line.clock.move_network(75 * number)
    elif what == "restarts":
        line.clock.move(timedelta(seconds=5))
        line.registry = line.opened()
        await line.registry.load()
    elif (row := line.registry.row(client.id)) is None:
        pass  # it never came
    elif what == "moves out":
        await line.registry.adopt([reported(client)])
    elif row.position and (beside := row.position.forward or row.position.backward):
        await client.says(lost=[beside.id])


async def test_the_revision_never_goes_back(line: Line) -> None:
    clients = await line.clients("127.0.1.11", "127.0.1.12", "127.0.1.13")
    seen = [line.registry.revision]
    for step in range(4):
        line.clock.move_network(100)
        await clients[step % 3].says()
        seen.append(line.registry.revision)
    line.clock.move(timedelta(seconds=5))
    line.registry = line.opened()
    await line.registry.load()
    seen.append(line.registry.revision)
    await clients[0].says()
    seen.append(line.registry.revision)
    assert seen == sorted(seen)
    assert seen[-2] > seen[-3]


# --- lost neighbours


@pytest.mark.req("G1")
async def test_a_neighbours_report_closes_the_gap(
    line: Line, lines: list[dict[str, object]]
) -> None:
    one, two, three = await line.clients("127.0.1.11", "127.0.1.12", "127.0.1.13")
    answer = await one.says(lost=[two.id])
    assert neighbours(answer) == (None, "127.0.1.13")
    assert neighbours(await three.says()) == ("127.0.1.11", None)
    assert not two.present
    (lost,) = [line for line in lines if line["event"] == "client.lost"]
    assert (lost["client"], lost["reporter"]) == (two.id.hex(), one.id.hex())
    # It is there after all, and says so.
    await two.says()
    assert neighbours(await one.says()) == (None, "127.0.1.12")


@pytest.mark.req("G1")
async def test_nobody_else_is_believed(line: Line) -> None:
    one, two, three = await line.clients("127.0.1.11", "127.0.1.12", "127.0.1.13")
    stranger = line.client("127.0.2.11")
    await stranger.says(full=True, lost=[one.id, two.id, three.id])
    await three.says(lost=[one.id, stranger.id, three.id, bytes(16)])
    for client in (one, two, three, stranger):
        assert client.present
    assert neighbours(await two.says()) == ("127.0.1.11", "127.0.1.13")


async def test_one_liar_cannot_have_a_subnet_planned_without_everybody_beside_him(
    line: Line,
) -> None:
    clients = await line.clients(*(f"127.0.1.{n}" for n in range(11, 22)))
    liar, *others = clients
    for other in others:
        await liar.says(lost=[other.id])
    present = [other for other in others if line.registry.row(other.id).present]  # type: ignore[union-attr]
    assert len(present) == len(others) - LOSSES
    line.clock.move_network(LOSS_INTERVAL)
    await liar.says(lost=[present[0].id])
    assert not line.registry.row(present[0].id).present  # type: ignore[union-attr]


async def test_a_copied_machine_reports_nobody_lost(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    refused(await one.asks(Register(token=b"copy", lost=[two.id])), "cloned")
    assert two.present


# --- other responders


def reported(client: Client, *, responder: bytes = ZONE) -> ClientRecord:
    return replace(client.record, responder=responder, token_out=None, token_shown=None)


@pytest.mark.req("G6")
async def test_clients_of_another_responder_are_listed_and_not_planned(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.13")
    other = replace(reported(one), id=b"\x77" * 16, claimed="127.0.1.12")
    await line.registry.adopt([other])
    assert neighbours(await one.says()) == (None, "127.0.1.13")
    row = line.registry.row(other.id)
    assert row is not None
    assert row.present
    assert row.position is None
    assert two.id in line.registry.changed
    assert line.store.rows[other.id] == other
    line.registry = line.opened()
    await line.registry.load()
    assert neighbours(await one.says()) == (None, "127.0.1.13")


@pytest.mark.req("G1", "G6")
async def test_a_client_that_moves_to_another_responder_leaves_its_neighbours(line: Line) -> None:
    one, two, three = await line.clients("127.0.1.11", "127.0.1.12", "127.0.1.13")
    before = (await one.says()).revision
    line.clock.move_network(MISSED * LONGEST)  # it registers elsewhere now
    await one.says()
    await three.says()
    await line.registry.adopt([reported(two)])
    answer = await one.says()
    assert neighbours(answer) == (None, "127.0.1.13")
    assert answer.revision > before
    assert neighbours(await three.says()) == ("127.0.1.11", None)


async def test_a_client_that_registers_elsewhere_is_not_said_to_be_silent(
    line: Line, lines: list[dict[str, object]]
) -> None:
    (one,) = await line.clients("127.0.1.11")
    line.clock.move_network(MISSED * LONGEST)
    elsewhere = replace(line.store.rows[one.id], responder=ZONE)
    await line.registry.adopt([elsewhere])
    line.registry.look()
    assert line.registry.responder_of(one.id) == ZONE
    assert "client.silent" not in [line["event"] for line in lines]


async def test_a_zone_server_cannot_take_a_client_that_registers_here(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    await line.registry.adopt([reported(two)])
    assert line.registry.responder_of(two.id) == line.registry.responder_of(one.id) != ZONE
    assert neighbours(await one.says()) == (None, "127.0.1.12")
    await two.says()  # and its token is still the one on record


async def test_a_zone_server_cannot_take_a_client_of_another(line: Line) -> None:
    one = (await line.clients("127.0.1.11"))[0]
    other, thief = b"\x55" * 16, b"\x66" * 16
    there = replace(reported(one, responder=other), id=b"\x77" * 16)
    await line.registry.adopt([there])
    await line.registry.adopt([replace(there, responder=thief)])
    assert line.registry.responder_of(there.id) == other
    await line.registry.adopt(
        [replace(there, lost_at=line.clock.now())]
    )  # it has left, says its own
    await line.registry.adopt([replace(there, responder=thief)])
    assert line.registry.responder_of(there.id) == thief


@pytest.mark.req("G6")
async def test_a_client_that_registers_here_is_ours_though_it_is_reported_meanwhile(
    line: Line,
) -> None:
    (donor,) = await line.clients("127.0.1.12")
    client = line.client("127.0.1.11")
    line.store.slow = True
    report = replace(donor.record, id=client.id, responder=ZONE)
    await asyncio.gather(client.says(full=True), line.registry.adopt([report]))
    assert line.registry.responder_of(client.id) == RESPONDER
    assert line.store.rows[client.id].responder == RESPONDER
    assert neighbours(await client.says()) == (None, "127.0.1.12")


@pytest.mark.req("F1")
async def test_a_client_that_comes_from_another_responder_is_believed(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    line.clock.move_network(MISSED * LONGEST)
    await one.says()
    await line.registry.adopt([reported(two)])
    two.token = b"of the other responder"
    refused(await two.asks(Register(token=two.token)), "full")
    await two.says(full=True)
    assert neighbours(await one.says()) == (None, "127.0.1.12")
    refused(await two.asks(Register(token=b"yet another")), "cloned")


# --- changes


async def test_what_changed_is_there_for_whoever_reports_it(line: Line) -> None:
    one, two = await line.clients("127.0.1.11", "127.0.1.12")
    assert line.registry.changed == {one.id, two.id}
    line.registry.changed = set()
    await one.says()
    assert line.registry.changed == {one.id}


async def test_rows_are_in_the_order_of_host_names(line: Line) -> None:
    await line.clients("127.0.1.13", "127.0.1.11", "127.0.1.12")
    hosts = [row.record.host for row in line.registry.rows()]
    assert hosts == sorted(hosts)


@pytest.mark.req("G1")
async def test_a_hundred_and_one_clients_are_two_chains(line: Line) -> None:
    first = ip_address("127.0.1.1")
    clients = await line.clients(*(str(first + n) for n in range(101)))
    rows = [line.registry.row(client.id) for client in clients]
    chains = {row.position.chain for row in rows if row is not None and row.position is not None}
    assert chains == {"127.0.1.0/24#0", "127.0.1.0/24#1"}
    leaders = [row for row in rows if row and row.position and row.position.leader]
    assert len(leaders) == 4

from collections import Counter
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.responder.neighbourhoods import Member, Plan, Policy, plan


def member(number: int, address: str, port: int = 14172) -> Member:
    return Member(number.to_bytes(16, "big"), address, port)


def shape(drawn: Plan) -> dict[str, list[str]]:
    return {name: [one.address for one in chain] for name, chain in drawn.chains.items()}


def links(drawn: Plan) -> set[tuple[bytes, bytes]]:
    """Every pair of neighbours, as (id of the dialer, id of its forward neighbour)."""
    chains = drawn.chains.values()
    return {(lower.id, higher.id) for chain in chains for lower, higher in pairwise(chain)}


@st.composite
def fleets(draw: st.DrawFn, *, max_size: int = 60) -> list[Member]:
    """Members of a few crowded subnets, so that chains, ties and cuts all happen."""
    places = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["10.0.0.", "10.0.1.", "127.0.9.", "::ffff:10.0.0.", "fd00::"]),
                st.integers(0, 40),
                st.integers(1, 3),
            ),
            max_size=max_size,
        )
    )
    return [member(i, f"{net}{host}", port) for i, (net, host, port) in enumerate(places)]


policies = st.builds(
    Policy,
    prefix4=st.sampled_from([0, 8, 24, 30, 32]),
    prefix6=st.sampled_from([None, 0, 64, 128]),
    cap=st.integers(1, 12),
)


@pytest.mark.req("G1")
def test_a_subnet_is_one_chain_ordered_by_address_as_a_number() -> None:
    drawn = plan([member(1, "127.0.1.9"), member(2, "127.0.1.10"), member(3, "127.0.2.1")])
    assert shape(drawn) == {
        "127.0.1.0/24#0": ["127.0.1.9", "127.0.1.10"],
        "127.0.2.0/24#0": ["127.0.2.1"],
    }


@pytest.mark.req("G1", "G2")
def test_each_knows_its_neighbours_and_only_the_ends_lead() -> None:
    low, middle, high = (member(i, f"127.0.1.{i}") for i in (1, 2, 3))
    drawn = plan([high, low, middle])
    assert [drawn.positions[one.id].leader for one in (low, middle, high)] == [True, False, True]
    here = drawn.positions[middle.id]
    assert (here.chain, here.index, here.size) == ("127.0.1.0/24#0", 1, 3)
    assert (here.backward, here.forward) == (low, high)
    assert drawn.positions[low.id].backward is None
    assert drawn.positions[high.id].forward is None
    assert links(drawn) == {(low.id, middle.id), (middle.id, high.id)}


def test_a_client_alone_leads() -> None:
    here = plan([member(1, "10.1.1.1")]).positions[member(1, "10.1.1.1").id]
    assert here.leader
    assert (here.forward, here.backward, here.size) == (None, None, 1)


def test_one_address_is_ordered_by_port_and_then_by_id() -> None:
    at = "10.0.0.1"
    ordered = [member(9, at, 100), member(1, at, 200), member(2, at, 200)]
    drawn = plan(reversed(ordered))
    assert list(drawn.chains["10.0.0.0/24#0"]) == ordered


@pytest.mark.parametrize(
    ("count", "cap", "sizes"),
    [
        (100, 100, [100]),
        (101, 100, [50, 51]),
        (201, 100, [67, 67, 67]),
        (5, 2, [1, 2, 2]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_subnet_above_the_cap_is_split_evenly(count: int, cap: int, sizes: list[int]) -> None:
    drawn = plan([member(i, f"10.0.0.{i}") for i in range(count)], Policy(cap=cap))
    assert list(drawn.chains) == [f"10.0.0.0/24#{i}" for i in range(len(sizes))]
    assert [len(chain) for chain in drawn.chains.values()] == sizes


@pytest.mark.req("G1")
def test_ipv6_is_off_by_default_and_each_such_client_is_alone() -> None:
    six = [member(1, "fd00::1"), member(2, "fd00::2"), member(3, "fd00::2", port=5)]
    drawn = plan(six)
    assert all(drawn.positions[one.id].leader for one in six)
    assert links(drawn) == set()
    assert len(drawn.chains) == 3
    assert len(plan(six, Policy(prefix6=64)).chains["fd00::/64#0"]) == 3


def test_ipv6_with_a_prefix_of_128_shares_an_address_and_not_a_name() -> None:
    two = [member(1, "fd00::1", port=1), member(2, "fd00::1", port=2)]
    assert len(links(plan(two, Policy(prefix6=128)))) == 1


def test_an_ipv4_address_written_as_ipv6_is_the_ipv4_address() -> None:
    drawn = plan([member(1, "::ffff:10.0.0.2"), member(2, "10.0.0.1")])
    assert shape(drawn) == {"10.0.0.0/24#0": ["10.0.0.1", "10.0.0.2"]}


@pytest.mark.parametrize(
    "address",
    [
        "",
        "client-07.example",
        "10.0.0.256",
        "10.0.0.0/24",
        "fe80::1%eth0",
        "::ffff:10.0.0.2%\u2028",
    ],
)
def test_what_is_no_address_is_refused_before_it_can_reach_a_plan(address: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear to be|names a zone"):
        member(1, address)


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="port"):
        member(1, "10.0.0.1", port)


@pytest.mark.parametrize(
    "policy", [{"prefix4": 33}, {"prefix4": -1}, {"prefix6": 129}, {"prefix6": -1}, {"cap": 0}]
)
def test_an_impossible_policy_is_refused(policy: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(policy))):
        Policy(**policy)


def test_one_id_at_two_places_is_refused() -> None:
    with pytest.raises(ValueError, match=f"two members have the id {7:032x}"):
        plan([member(7, "10.0.0.1"), member(7, "10.0.1.1")])


@given(fleets(), policies)
def test_every_member_has_exactly_one_position(members: list[Member], policy: Policy) -> None:
    drawn = plan(members, policy)
    placed = [one for chain in drawn.chains.values() for one in chain]
    assert Counter(placed) == Counter(members)
    assert set(drawn.positions) == {one.id for one in members}
    for name, chain in drawn.chains.items():
        for index, one in enumerate(chain):
            here = drawn.positions[one.id]
            assert (here.chain, here.index, here.size) == (name, index, len(chain))


@given(fleets(), policies)
@pytest.mark.req("G1")
def test_forward_and_backward_mirror_each_other(members: list[Member], policy: Policy) -> None:
    drawn = plan(members, policy)
    forward = {one.id: drawn.positions[one.id].forward for one in members}
    backward = {one.id: drawn.positions[one.id].backward for one in members}
    ahead = {(a, b.id) for a, b in forward.items() if b is not None}
    behind = {(a.id, b) for b, a in backward.items() if a is not None}
    assert ahead == behind == links(drawn)
    for ends in (Counter(a for a, _ in ahead), Counter(b for _, b in ahead)):
        assert set(ends.values()) <= {1}


@given(fleets(), policies)
@pytest.mark.req("G2")
def test_a_chain_has_two_leaders_and_a_client_alone_is_one(
    members: list[Member], policy: Policy
) -> None:
    drawn = plan(members, policy)
    for chain in drawn.chains.values():
        leaders = [one for one in chain if drawn.positions[one.id].leader]
        assert leaders == ([chain[0], chain[-1]] if len(chain) > 1 else [chain[0]])


@given(fleets(), policies)
def test_a_chain_obeys_cap_subnet_and_order(members: list[Member], policy: Policy) -> None:
    for name, chain in plan(members, policy).chains.items():
        network = ip_network(name.partition("#")[0])
        assert 1 <= len(chain) <= policy.cap
        for one in chain:
            address = ip_address(one.address)
            mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
            assert (mapped or address) in network
        assert all(lower.place < higher.place for lower, higher in pairwise(chain))


@given(fleets(), policies, st.data())
def test_the_order_in_which_members_come_does_not_matter(
    members: list[Member], policy: Policy, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(members))
    assert plan(shuffled, policy) == plan(members, policy)


@given(fleets(), policies)
def test_the_plan_of_one_subnet_is_its_part_of_the_whole(
    members: list[Member], policy: Policy
) -> None:
    whole = plan(members, policy)
    parts: dict[str, list[Member]] = {}
    for one in members:
        parts.setdefault(one.subnet(policy), []).append(one)
    merged: dict[str, tuple[Member, ...]] = {}
    for part in parts.values():
        merged |= plan(part, policy).chains
    assert merged == dict(whole.chains)


@given(fleets(), st.data())
@pytest.mark.req("G1")
def test_who_joins_or_leaves_changes_the_neighbours_of_those_beside_him_only(
    members: list[Member], data: st.DataObject
) -> None:
    joins = data.draw(st.sampled_from([member(999, "10.0.0.20"), member(999, "127.0.9.0")]))
    before, after = plan(members), plan([*members, joins])
    beside = after.positions[joins.id]
    touched = {one.id for one in (beside.forward, beside.backward) if one is not None}
    for one in members:
        old, new = before.positions[one.id], after.positions[one.id]
        if (old.forward, old.backward) != (new.forward, new.backward):
            assert one.id in touched


@given(fleets(max_size=40), st.integers(1, 9))
def test_in_a_subnet_of_many_chains_each_cut_moves_by_one_at_most(
    members: list[Member], cap: int
) -> None:
    policy = Policy(prefix4=0, cap=cap)
    joins = member(999, "10.0.0.20", 3)
    before, after = plan(members, policy), plan([*members, joins], policy)
    cuts = len(before.chains) + len(after.chains)
    # The newcomer's own two links and the one that he replaces; beyond that a cut each.
    assert len(links(before) ^ links(after)) <= 3 + cuts

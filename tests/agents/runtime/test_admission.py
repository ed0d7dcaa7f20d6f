"""Counting at the door, without a door."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime.admission import Admission, Buckets, Gate, Pass
from agents.runtime.config import load, render_sample
from agents.runtime.errors import ConfigError
from agents.server.config import Config as ServerConfig
from agents.zone_server.config import Config as ZoneServerConfig


class TestBuckets:
    def test_a_burst_and_then_one_an_interval(self) -> None:
        buckets = Buckets(burst=3, interval=60.0, capacity=10)
        assert [buckets.take("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 60.0]
        assert buckets.take("a", 59.0) == pytest.approx(1.0)
        assert buckets.take("a", 60.0) == 0.0
        assert buckets.take("a", 60.0) == pytest.approx(60.0)

    def test_one_key_does_not_use_up_another(self) -> None:
        buckets = Buckets(burst=1, interval=60.0, capacity=10)
        assert buckets.take("a", 0.0) == 0.0
        assert buckets.take("a", 0.0) > 0
        assert buckets.take("b", 0.0) == 0.0

    def test_a_refusal_takes_nothing(self) -> None:
        buckets = Buckets(burst=1, interval=60.0, capacity=10)
        buckets.take("a", 0.0)
        for _ in range(100):
            assert buckets.take("a", 30.0) == pytest.approx(30.0)

    def test_a_full_bucket_is_no_fuller_after_a_year(self) -> None:
        buckets = Buckets(burst=2, interval=60.0, capacity=10)
        assert [buckets.take("a", 3e7) for _ in range(3)] == [0.0, 0.0, 60.0]

    def test_a_million_addresses_take_the_memory_of_the_capacity(self) -> None:
        buckets = Buckets(burst=1, interval=60.0, capacity=10)
        for n in range(1000):
            buckets.take(str(n), 0.0)
        assert len(buckets) == 10

    def test_the_longest_unseen_is_forgotten_and_no_other(self) -> None:
        buckets = Buckets(burst=2, interval=60.0, capacity=2)
        for key in ("a", "b", "a", "c"):
            buckets.take(key, 0.0)
        assert [buckets.take(key, 0.0) for key in ("a", "c", "c")] == [60.0, 0.0, 60.0]

    @given(
        burst=st.integers(1, 5),
        steps=st.lists(st.floats(0.0, 200.0, allow_nan=False), max_size=60),
    )
    def test_never_more_than_burst_and_rate_allow(self, burst: int, steps: list[float]) -> None:
        buckets = Buckets(burst=burst, interval=60.0, capacity=10)
        now, taken = 0.0, 0
        for step in steps:
            now += step
            if buckets.take("a", now) == 0.0:
                taken += 1
            assert taken <= burst + now / 60.0 + 1e-6


class TestGate:
    def test_who_fits_enters(self) -> None:
        gate = Gate(Admission())
        assert gate.arrive("a") == (Pass.ENTER, 0.0, "")
        assert (gate.connections, gate.handshakes) == (1, 1)
        gate.settled(Pass.ENTER, "a")
        assert (gate.connections, gate.handshakes) == (1, 0)
        gate.left("a")
        assert (gate.connections, gate.handshakes) == (0, 0)

    @pytest.mark.parametrize(
        ("bound", "address", "retry_after", "reason"),
        [
            (Admission(connections=2), "b", 30.0, "2 connections"),
            (Admission(per_address=2), "a", 30.0, "2 connections of one address"),
            (Admission(handshakes=2), "b", 2.0, "2 handshakes in flight"),
            (
                Admission(handshakes_per_address=2),
                "a",
                2.0,
                "2 handshakes in flight of one address",
            ),
        ],
        ids=["connections", "address", "handshakes", "handshakes of one address"],
    )
    def test_over_a_bound_come_courtesies_and_then_nothing(
        self, bound: Admission, address: str, retry_after: float, reason: str
    ) -> None:
        gate = Gate(bound)
        gate.arrive("a")
        gate.arrive("a")
        for _ in range(bound.courtesies):
            assert gate.arrive(address) == (Pass.COURTESY, retry_after, reason)
        before = (gate.connections, gate.handshakes)
        assert gate.arrive(address) == (Pass.DROP, retry_after, reason)
        assert (gate.connections, gate.handshakes) == before
        gate.settled(Pass.COURTESY, address)
        gate.left(address)
        assert gate.arrive(address)[0] is Pass.COURTESY

    def test_an_address_that_has_gone_is_forgotten(self) -> None:
        gate = Gate(Admission())
        for n in range(100):
            gate.arrive(str(n))
            gate.settled(Pass.ENTER, str(n))
            gate.left(str(n))
        assert not gate._by_address
        assert not gate._begun

    def test_who_begins_many_and_ends_none_leaves_room(self) -> None:
        gate = Gate(Admission())
        for _ in range(1000):
            gate.arrive("a")
        assert gate.arrive("b")[0] is Pass.ENTER
        # What ends makes room for one more of the same address.
        gate.settled(Pass.ENTER, "a")
        assert gate.arrive("a")[0] is Pass.ENTER


@pytest.mark.req("E6")
@pytest.mark.parametrize("role", [ServerConfig, ZoneServerConfig])
def test_the_bounds_are_settings_with_documented_defaults(
    role: type[ServerConfig | ZoneServerConfig],
) -> None:
    assert role().admission == Admission()
    set_ = load("[admission]\nhandshakes = 3\nper_address = 7\n", role).admission
    assert (set_.handshakes, set_.per_address) == (3, 7)
    sample = render_sample(role)
    for field in fields(Admission):
        assert f"\n#{field.name} = {getattr(Admission(), field.name)}\n" in sample
    with pytest.raises(ConfigError, match=r"admission.handshakes.*at least 1"):
        load("[admission]\nhandshakes = 0\n", role)

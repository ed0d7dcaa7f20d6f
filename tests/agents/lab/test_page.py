import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.lab.page import LEAP, RING, SIZE, Leg, Page, milli

ROOT = Path(__file__).parents[3]
POLICY = 1_772_323_200_000_000
MOMENT = 5_000_000_000
A, B = 0x0123456789ABCDEF, 0xFEDCBA9876543210

moments = st.integers(0, 2**62)
policies = st.integers(0, 2**60)


@st.composite
def legs(draw: st.DrawFn) -> Leg:
    p0 = draw(policies)
    rate = draw(st.one_of(st.integers(1, 10**7), st.just(LEAP)))
    return Leg(draw(moments), p0, p0 + draw(st.integers(0, 2**45)), rate)


@given(legs(), moments, moments)
def test_time_never_goes_back_and_stays_inside_the_leg(leg: Leg, one: int, other: int) -> None:
    early, late = sorted((one, other))
    assert leg.p0 <= leg.at(early) <= leg.at(late) <= leg.p1


@given(legs(), st.integers(0, 2**40))
def test_a_leg_follows_its_rate(leg: Leg, passed: int) -> None:
    assert leg.at(leg.start + passed) == min(leg.p0 + passed * leg.rate // 10**6, leg.p1)


@given(legs(), st.data())
def test_when_is_the_first_moment_at_which_time_is_there(leg: Leg, data: st.DataObject) -> None:
    policy = data.draw(st.integers(leg.p0, leg.p1))
    moment = leg.when(policy)
    assert leg.at(moment) >= policy
    assert moment == leg.start or leg.at(moment - 1) < policy


@given(legs(), legs(), moments)
def test_a_reader_with_the_leg_before_is_behind_never_ahead(old: Leg, new: Leg, at: int) -> None:
    start = old.when(old.p1)
    following = Leg(start, old.p1, old.p1 + (new.p1 - new.p0), new.rate)
    assert old.at(start + at) <= following.at(start + at)


def test_a_leg_that_goes_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="goes nowhere"):
        Leg(0, 2, 1, 1000)
    with pytest.raises(ValueError, match="goes nowhere"):
        Leg(0, 1, 2, 0)
    with pytest.raises(ValueError, match="past the end"):
        Leg(0, 1, 2, 1000).when(3)


def test_rates_are_kept_in_thousandths() -> None:
    assert (milli(300), milli(1), milli(0.0000001)) == (300_000, 1000, 1)


def test_a_new_page_stands_and_then_holds_the_newest_leg() -> None:
    page = Page.create(POLICY, MOMENT)
    reader = Page.attach(page.fd)
    assert reader.read().at(MOMENT + 10**15) == POLICY
    for n in range(1, 3 * RING):
        leg = Leg(MOMENT + n, POLICY + n, POLICY + n + 1, 1000 + n)
        page.publish(leg)
        assert reader.read() == leg
        assert reader.generation == n + 1
    assert reader.origin == POLICY
    reader.close()
    page.close()


def test_a_page_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "time"
    page = Page.create(POLICY, MOMENT, path)
    reader = Page.attach(path)
    page.publish(Leg(MOMENT, POLICY, POLICY + 5, 1000))
    assert reader.read().p1 == POLICY + 5
    with pytest.raises(FileExistsError):
        Page.create(POLICY, MOMENT, path)
    reader.close()
    page.close()


def test_a_reader_cannot_write() -> None:
    page = Page.create(POLICY, MOMENT)
    reader = Page.attach(page.fd)
    with pytest.raises(TypeError):
        reader.publish(Leg(MOMENT, POLICY, POLICY + 5, 1000))
    reader.close()
    page.close()


@pytest.mark.parametrize("content", [b"", b"x" * SIZE, bytes(SIZE + 8)])
def test_another_file_is_no_page(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "time"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a page"):
        Page.attach(path)


def test_a_damaged_leg_is_not_believed() -> None:
    page = Page.create(POLICY, MOMENT)
    reader = Page.attach(page.fd)
    os.pwrite(page.fd, (POLICY + 10**12).to_bytes(8, sys.byteorder), 8 * (8 + 8 + 3))
    with pytest.raises(RuntimeError, match="no whole leg"):
        reader.read()
    reader.close()
    page.close()


WRITE_LEGS = """
import sys
from agents.lab.page import Leg, Page
page = Page(int(sys.argv[1]), writable=True)
n = 1
while True:
    n += 1
    page.publish(Leg(n * 0x101010101, n * 0x01010101, n * 0x01010102, n))
"""

STORE = """
import mmap, struct, sys
memory = mmap.mmap(int(sys.argv[1]), 4096)
words = memoryview(memory).cast("Q")
a, b = int(sys.argv[2]), int(sys.argv[3])
while True:
    {a}
    {b}
"""


@contextmanager
def writer(program: str, fd: int, *arguments: int) -> Iterator[None]:
    """Run a program that writes to shared memory all the time."""
    command = [sys.executable, "-c", program, str(fd), *map(str, arguments)]
    with subprocess.Popen(command, pass_fds=[fd], cwd=ROOT) as process:
        try:
            yield
        finally:
            process.kill()


def seen_through(a: str, b: str, reads: int) -> set[int]:
    """Return what a reader sees of a word that a writer keeps setting to A and B."""
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4096)
    memory = mmap.mmap(fd, 4096)
    words = memoryview(memory).cast("Q")
    words[0] = A
    seen: set[int] = set()
    with writer(STORE.format(a=a, b=b), fd, A, B):
        while B not in seen:  # until the writer has begun
            seen.add(words[0])
        for _ in range(reads):
            seen.update([words[0] for _ in range(100)])
            if seen - {A, B}:
                break
    words.release()
    memory.close()
    os.close(fd)
    return seen


@pytest.mark.sockets
def test_readers_see_whole_legs_in_order_under_a_busy_writer() -> None:
    page = Page.create(POLICY, MOMENT)
    reader = Page.attach(page.fd)
    with writer(WRITE_LEGS, page.fd):
        while reader.read().start == MOMENT:
            pass
        last = 0
        while last < 100_000:
            leg = reader.read()
            n = leg.rate
            assert (leg.start, leg.p0, leg.p1) == (n * 0x101010101, n * 0x1010101, n * 0x1010102)
            assert n >= last
            last = n
    reader.close()
    page.close()


@pytest.mark.sockets
def test_a_word_stored_through_a_cast_view_is_never_torn() -> None:
    assert seen_through("words[0] = a", "words[0] = b", reads=20_000) == {A, B}


@pytest.mark.sockets
def test_struct_pack_into_shows_readers_torn_words() -> None:
    a, b = 'struct.pack_into("<Q", memory, 0, a)', 'struct.pack_into("<Q", memory, 0, b)'
    assert seen_through(a, b, reads=1_000_000) - {A, B}

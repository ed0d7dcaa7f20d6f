"""Bytes that are almost right, and values that are well-formed and wrong.

`mangled` starts from bytes that are right and does to them what a disk, a network or an enemy
does. `changed` starts from a value of a format and puts something else at one place of it, so
that what comes out is canonical and gets as far as the checks behind the parser.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import msgpack
from hypothesis import strategies as st

__all__ = [
    "Harm",
    "Value",
    "changed",
    "harmed",
    "harms",
    "heads_of_msgpack",
    "mangled",
    "noise",
    "odd",
    "pieces",
]

Value: TypeAlias = object

noise = st.binary(max_size=300)

_RUNS = st.sampled_from(
    [b"\x00" * 32, b"\xff" * 32, b"\x80", b"\xc0", b"\xc1", b"\x90", b"\x30\x82\xff\xff", b"\r\n"]
)

odd: st.SearchStrategy[Value] = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            False,
            0,
            -1,
            1,
            2**31,
            2**32,
            2**40,
            2**63 - 1,
            2**63,
            2**64 - 1,
            -(2**63),
            b"",
            b"\x00",
            bytes(16),
            bytes(31),
            bytes(32),
            bytes(33),
            bytes(5000),
            "",
            "\0",
            "../../etc/passwd",
            "x" * 5000,
            "\x1b[2J",
            "\u202e",
            "\N{SNOWMAN}" * 300,
            [],
            [[]],
            [None] * 40,
            [b"x" * 32] * 3,
            [["a", "b"], ["a", "b"]],
        ]
    ),
    st.integers(-(2**63), 2**64 - 1),
    st.binary(max_size=40),
    st.text(max_size=20),
)
"""What no field expects, or expects and hardly ever gets."""


Harm: TypeAlias = tuple[int, float, float, int, bytes]
"""What is done to bytes: kind, two places from 0 to 1, a mask, and bytes to put there."""

_place = st.floats(0, 1)
harms: st.SearchStrategy[list[Harm]] = st.lists(
    st.tuples(st.integers(0, 7), _place, _place, st.integers(1, 255), noise | _RUNS),
    min_size=1,
    max_size=4,
)


def harmed(data: bytes, done: Sequence[Harm], other: bytes = b"") -> bytes:
    """The bytes after something was done to them, whatever their length."""
    for kind, first, second, mask, new in done:
        a, b = sorted((round(first * len(data)), round(second * len(data))))
        match kind:
            case 0:
                data = data[:a]
            case 1:
                data = data[a:]
            case 2:
                data = data[:a] + bytes(byte ^ mask for byte in data[a : a + 1]) + data[a + 1 :]
            case 3:
                data = data[:a] + new + data[a:]
            case 4:
                data = data[:a] + new + data[a + len(new) :]
            case 5:
                data = data[:a] + data[b:]
            case 6:
                data = data[:b] + data[a:]
            case _:
                data = data[:a] + other[b:]
        data = data[: 1 << 18]
    return data


def mangled(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of the seeds, cut, flipped, spliced and repeated up to four times."""
    seed = st.sampled_from(seeds)
    return st.builds(harmed, seed, harms, seed)


@st.composite
def changed(draw: st.DrawFn, value: Value) -> Value:
    """The value with something odd at one place of it, or one item more, less or twice."""
    if not isinstance(value, list | dict) or not value or draw(st.integers(0, 9)) == 0:
        return draw(odd)
    if isinstance(value, dict):
        name = draw(st.sampled_from(sorted(value)))
        match draw(st.integers(0, 5)):
            case 0:
                return {key: held for key, held in value.items() if key != name}
            case 1:
                return {**value, draw(st.text(max_size=9)): draw(odd)}
            case _:
                return {**value, name: draw(changed(value[name]))}
    at = draw(st.integers(0, len(value) - 1))
    match draw(st.integers(0, 7)):
        case 0:
            return [*value[:at], *value[at + 1 :]]
        case 1:
            return [*value, value[at]]
        case 2:
            return list(reversed(value))
        case _:
            return [*value[:at], draw(changed(value[at])), *value[at + 1 :]]


def _header(kind: int, size: int) -> bytes:
    packer = msgpack.Packer(use_bin_type=True)
    match kind:
        case 0:
            head: bytes = packer.pack_array_header(size)
        case 1:
            head = packer.pack_map_header(size)
        case 2:
            head = b"\xc6" + size.to_bytes(4)
        case 3:
            head = b"\xdb" + size.to_bytes(4)
        case 4:
            head = b"\xdd" + size.to_bytes(4)
        case 5:
            head = b"\xc9" + size.to_bytes(4) + b"\x01"
        case _:
            head = b"\xdf" + size.to_bytes(4)
    return head


def _packed(value: Value) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


heads_of_msgpack: st.SearchStrategy[bytes] = st.lists(
    st.builds(
        _header, st.integers(0, 6), st.sampled_from([0, 1, 2, 512, 1024, 65_536, 2**31, 2**32 - 1])
    )
    | odd.map(_packed),
    max_size=30,
).map(b"".join)
"""Headers that promise what does not come, and values at places where none belongs."""


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in other pieces."""
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=12))})
    return [data[a:b] for a, b in pairwise(cuts)]

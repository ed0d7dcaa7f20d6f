"""Canonical msgpack: one value, one encoding, and a documented error for all else."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import encoding
from pki.encoding import as_bytes, as_int, as_list, as_text, pack, unpack
from pki.errors import MalformedError

LIMIT = 4096

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=100)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=20), max_leaves=20)


@given(values)
def test_what_is_packed_is_unpacked(value: object) -> None:
    assert unpack(pack(value), max_bytes=1 << 20) == value


@given(values, st.data())
def test_a_changed_byte_is_refused_or_is_another_value(value: object, data: st.DataObject) -> None:
    # Never two encodings of one value: that is what canonical means.
    encoded = pack(value)
    place = data.draw(st.integers(0, len(encoded) - 1))
    changed = bytearray(encoded)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        other = unpack(bytes(changed), max_bytes=1 << 20)
    except MalformedError:
        return
    assert pack(other) == bytes(changed) != encoded


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    try:
        value = unpack(data, max_bytes=200)
    except MalformedError:
        return
    assert pack(value) == data


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "c0"),
        (True, "c3"),
        (0, "00"),
        (127, "7f"),
        (128, "cc80"),
        (-1, "ff"),
        (-33, "d0df"),
        (256, "cd0100"),
        (2**64 - 1, "cfffffffffffffffff"),
        (b"", "c400"),
        (b"\x01", "c40101"),
        (bytes(256), "c50100" + "00" * 256),
        ("", "a0"),
        ("é", "a2c3a9"),
        ([], "90"),
        ([1, [b"a", "b"]], "920192c40161a162"),
        ((1, 2), "920102"),
    ],
    ids=str,
)
def test_the_shortest_form_is_written(value: object, text: str) -> None:
    assert pack(value).hex() == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("cc01", id="1 in two bytes"),
        pytest.param("d001", id="1, signed"),
        pytest.param("d37fffffffffffffff", id="positive as signed 64 bits"),
        pytest.param("c5000161", id="bin with a long header"),
        pytest.param("d90161", id="str with a long header"),
        pytest.param("dc000101", id="array with a long header"),
        pytest.param("81a161 01", id="map"),
        pytest.param("80", id="empty map"),
        pytest.param("ca3f800000", id="float 32"),
        pytest.param("cb3ff0000000000000", id="float 64"),
        pytest.param("d4017f", id="extension"),
        pytest.param("d6ff00000000", id="timestamp"),
        pytest.param("c1", id="never used"),
        pytest.param("0101", id="a second value after the first"),
        pytest.param("9201", id="cut"),
        pytest.param("c40561", id="bytes cut"),
        pytest.param("a2c328", id="no UTF-8"),
        pytest.param("a3eda080", id="a surrogate"),
        pytest.param("91" * 17 + "01", id="nested too deep"),
        pytest.param("91" * 3000 + "01", id="nested beyond any stack"),
        pytest.param("ddffffffff", id="four thousand million items announced"),
        pytest.param("dc0801" + "01" * 2049, id="more items than an array may have"),
        pytest.param("c6ffffffff", id="four thousand million bytes announced"),
    ],
)
def test_everything_else_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        unpack(bytes.fromhex(text), max_bytes=LIMIT)


def test_the_limits_of_items_and_depth_are_within() -> None:
    long = [1] * encoding.MAX_ITEMS
    deep: object = 1
    for _ in range(encoding.MAX_DEPTH):
        deep = [deep]
    assert unpack(pack(long), max_bytes=LIMIT) == long
    assert unpack(pack(deep), max_bytes=LIMIT) == deep


def test_size_is_checked_first() -> None:
    encoded = pack(bytes(100))
    assert unpack(encoded, max_bytes=len(encoded)) == bytes(100)
    with pytest.raises(MalformedError, match="102 bytes, at most 101"):
        unpack(encoded, max_bytes=len(encoded) - 1)


@pytest.mark.parametrize("value", [1.0, {}, {1}, bytearray(1), object(), [[1.5]]], ids=str)
def test_our_own_wrong_types_are_type_errors(value: object) -> None:
    with pytest.raises(TypeError):
        pack(value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_our_own_large_numbers_are_value_errors(value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        pack(value)


@pytest.mark.parametrize(
    ("read", "good"),
    [
        (as_bytes, b"x"),
        (as_int, 7),
        (as_text, "x"),
        (as_list, [1]),
    ],
    ids=["bytes", "int", "text", "list"],
)
@pytest.mark.parametrize("value", [b"x", 7, False, "x", [1], None], ids=repr)
def test_a_reader_takes_its_own_type_only(
    read: Callable[..., object], good: object, value: object
) -> None:
    if type(value) is type(good):
        assert read(value, what="field") == value
        return
    with pytest.raises(MalformedError, match="field is "):
        read(value, what="field")


def test_a_reader_takes_the_length_it_is_told() -> None:
    assert as_bytes(b"xy", length=2, what="field") == b"xy"
    assert as_list([1, 2], length=2, what="field") == [1, 2]
    with pytest.raises(MalformedError, match="field of 1 bytes, expected 2"):
        as_bytes(b"x", length=2, what="field")
    with pytest.raises(MalformedError, match="field of 0 items, expected 2"):
        as_list([], length=2, what="field")

"""Canonical msgpack: one value, one encoding.

What is signed is bytes, and histories are compared by the hash of bytes, so a value must not
have two encodings. The subset: arrays, integers, `bin` for bytes, `str` for text, booleans and
nil, each in its shortest form. No floats, no maps, no extensions. `unpack` re-encodes what it
read and refuses what does not come out the same.

Readers (`as_bytes`, `as_int`, `as_text`, `as_list`) turn one value of unknown type into one of a
known type and length, or raise `MalformedError`. A boolean is never taken for a number.
"""

from typing import Final

import msgpack

from pki.errors import MalformedError

__all__ = [
    "MAX_DEPTH",
    "MAX_ITEMS",
    "as_bytes",
    "as_int",
    "as_list",
    "as_text",
    "pack",
    "unpack",
]

MAX_DEPTH: Final = 16
"""Arrays within arrays; the deepest of our formats has five."""
MAX_ITEMS: Final = 2048
"""Items of one array; the longest of ours is a slot's 1,024 entries.

Memory for an array is reserved when its header is read, so without a limit a few nested headers
would ask for much more than they bring.
"""


def pack(value: object) -> bytes:
    """Encode a value canonically.

    Raises:
        TypeError: A type outside the subset: a bug of the caller, never input.
        ValueError: An integer beyond 64 bits, or deeper than `MAX_DEPTH`.
    """
    _check_types(value, MAX_DEPTH)
    try:
        encoded = msgpack.packb(value, use_bin_type=True)
    except OverflowError as exc:
        raise ValueError("integer beyond 64 bits") from exc
    assert isinstance(encoded, bytes)
    return encoded


def unpack(data: bytes, *, max_bytes: int) -> object:
    """Decode bytes that must be one canonical value, and nothing after it.

    Args:
        data: What arrived.
        max_bytes: Limit of its length, checked before anything is read.

    Raises:
        MalformedError: Larger, not msgpack, outside the subset, or not in shortest form.
    """
    if len(data) > max_bytes:
        raise MalformedError(f"{len(data)} bytes, at most {max_bytes}")
    try:
        value: object = msgpack.unpackb(
            data,
            raw=False,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
            max_array_len=MAX_ITEMS,
            max_map_len=0,
            max_ext_len=0,
        )
        canonical = pack(value)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as exc:
        raise MalformedError("not canonical msgpack") from exc
    if canonical != data:
        raise MalformedError("not canonical msgpack: another encoding of the same value")
    return value


def _check_types(value: object, depth: int) -> None:
    if isinstance(value, list | tuple):
        if depth == 0:
            raise ValueError(f"arrays nested deeper than {MAX_DEPTH}")
        for item in value:
            _check_types(item, depth - 1)
    elif value is not None and not isinstance(value, bytes | str | int):
        raise TypeError(f"cannot encode {type(value).__name__}")


def as_bytes(value: object, *, length: int | None = None, what: str) -> bytes:
    """Read bytes, of exactly `length` if one is given.

    Raises:
        MalformedError: Another type or length.
    """
    if not isinstance(value, bytes):
        raise _another_type(what, "bytes", value)
    if length is not None and len(value) != length:
        raise MalformedError(f"{what} of {len(value)} bytes, expected {length}")
    return value


def as_int(value: object, *, what: str) -> int:
    """Read an integer.

    Raises:
        MalformedError: Another type.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise _another_type(what, "an integer", value)
    return value


def as_text(value: object, *, what: str) -> str:
    """Read text.

    Raises:
        MalformedError: Another type.
    """
    if not isinstance(value, str):
        raise _another_type(what, "text", value)
    return value


def as_list(value: object, *, length: int | None = None, what: str) -> list[object]:
    """Read an array, of exactly `length` items if one is given.

    Raises:
        MalformedError: Another type or length.
    """
    if not isinstance(value, list):
        raise _another_type(what, "a list", value)
    if length is not None and len(value) != length:
        raise MalformedError(f"{what} of {len(value)} items, expected {length}")
    return value


def _another_type(what: str, expected: str, got: object) -> MalformedError:
    return MalformedError(f"{what} is {type(got).__name__}, expected {expected}")

"""Every decoder gives an object or a documented error, whatever the bytes; never anything else."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.decoders import CORPUS, DECODERS, seeds
from tests.fuzz.depth import deeper
from tests.fuzz.mangle import heads_of_msgpack, mangled, noise
from tests.fuzz.regenerate import files

every = pytest.mark.parametrize("name", DECODERS)
MAX_MEMORY = 48 * 1024 * 1024
"""Bytes that decoding a few KiB may take at its peak."""

EVERYTHING = {
    f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(CORPUS.glob("*/*"))
}


def take(name: str, data: bytes) -> object:
    """What the decoder made of it: an object, or None for a documented error."""
    decoder = DECODERS[name]
    try:
        return decoder.read(data)
    except decoder.errors as exc:
        if len(str(exc)) > 2000:
            raise AssertionError(f"an error of {len(str(exc))} characters") from exc
        return None


def test_each_decoder_has_seeds_and_each_folder_a_decoder() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(DECODERS)


def test_the_corpus_holds_every_seed() -> None:
    for name, data in files().items():
        if not name.startswith(("keyring/", "keystore/")):
            assert EVERYTHING[name] == data, name


@pytest.mark.req("E4")
@every
def test_the_seeds_of_every_format_are_an_object_or_an_error_to_every_decoder(name: str) -> None:
    for data in EVERYTHING.values():
        take(name, data)
        take(name, data[: len(data) // 2])
        take(name, data + b"\0")


@pytest.mark.req("E4")
@every
def test_no_seed_makes_a_decoder_ask_for_much_memory(name: str) -> None:
    for seed, data in EVERYTHING.items():
        tracemalloc.start()
        take(name, data)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MAX_MEMORY, (seed, peak)


@deeper
@every
@pytest.mark.req("E4")
@given(st.data())
def test_mangled_bytes_are_an_object_or_an_error(
    name: str, depth: str, data: st.DataObject
) -> None:
    take(name, data.draw(mangled(seeds(name))))


@deeper
@every
@given(noise | heads_of_msgpack)
def test_noise_is_an_object_or_an_error(name: str, depth: str, data: bytes) -> None:
    take(name, data)


@deeper
@given(st.data())
def test_a_good_frame_of_mangled_msgpack_is_a_message_or_an_error(
    depth: str, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(seeds("message")))[:1]
    take(
        "message",
        kind + data.draw(heads_of_msgpack | mangled([seed[1:] for seed in seeds("message")])),
    )

"""The standby keys: kept apart, in the order of their turns, and never written over in doubt."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agents.runtime.errors import StateError
from agents.server.standby import KEY_FILE_BYTES, MAX_FILE, RESTORE, Standby
from pki import encoding, keys, keystore
from pki.keys import KeyId, PrivateKey
from tests.support.files import Crash, Failure, MemoryFiles

DB, KEY = Path("/state/standby.db"), Path("/standby/standby.key")

Change = Callable[[MemoryFiles], bytes | None]


def standby(files: MemoryFiles) -> Standby:
    return Standby(DB, KEY, files)


def made(count: int) -> dict[KeyId, PrivateKey]:
    made = [keys.generate() for _ in range(count)]
    return {keys.key_id(key.public_key()): key for key in made}


@pytest.fixture
def files() -> MemoryFiles:
    """A disk on which three keys are kept."""
    files = MemoryFiles()
    standby(files).save(made(3))
    return files


def sealed(files: MemoryFiles, content: bytes) -> bytes:
    secret = files.content[KEY]
    return keystore.seal(content, keystore.KeyFile(secret), random=lambda count: b"r" * count)


def replaced(files: MemoryFiles, path: Path, data: bytes | None) -> Standby:
    """What is kept, with another content of one of its files."""
    other = MemoryFiles()
    other.content = {**files.content}
    other.content.pop(path)
    if data is not None:
        other.content[path] = data
    return standby(other)


# --- what is kept


def test_keys_come_back_in_the_order_of_their_turns() -> None:
    files, held = MemoryFiles(), made(5)
    assert not standby(files).exists
    standby(files).save(held)
    assert standby(files).exists
    loaded = standby(files).load()
    assert list(loaded) == list(held)
    assert [keys.private_bytes(key) for key in loaded.values()] == [
        keys.private_bytes(key) for key in held.values()
    ]


def test_what_is_kept_next_replaces_all_of_it_and_is_sealed_with_the_same_key(
    files: MemoryFiles,
) -> None:
    secret, held = files.content[KEY], made(2)
    standby(files).save(held)
    assert list(standby(files).load()) == list(held)
    assert files.content[KEY] == secret


def test_neither_file_says_anything_without_the_other() -> None:
    files, held = MemoryFiles(), made(3)
    standby(files).save(held)
    assert len(files.content[KEY]) == KEY_FILE_BYTES
    for data in files.content.values():
        assert not any(keys.private_bytes(key) in data for key in held.values())
    assert set(files.modes.values()) == {0o600}
    for guess in (bytes(KEY_FILE_BYTES), b"k" * KEY_FILE_BYTES):
        with pytest.raises(StateError):
            replaced(files, KEY, guess).load()


# --- what cannot be opened says so, and what to do


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        (KEY, lambda _: None, f"{KEY} does not exist"),
        (DB, lambda _: None, f"{DB} does not exist"),
        (KEY, lambda _: b"k" * 31, f"{DB} does not open with {KEY}: key file of 31 bytes"),
        (KEY, lambda _: b"k" * 33, f"{DB} does not open with {KEY}: key file of 33 bytes"),
        (KEY, lambda _: b"k" * 32, f"{DB} does not open with {KEY}: does not open with this"),
        (DB, lambda files: files.content[DB][:-1], "sealed content is not what was written"),
        (DB, lambda _: bytes(MAX_FILE + 1), f"{DB} exceeds the limit of {MAX_FILE} bytes"),
        (DB, lambda files: sealed(files, b""), "not canonical msgpack"),
        (DB, lambda files: sealed(files, encoding.pack([b"x"])), "not a private key"),
        (DB, lambda files: sealed(files, encoding.pack([1])), "standby key"),
        (DB, lambda files: sealed(files, encoding.pack(1)), "standby keys"),
    ],
)
def test_what_does_not_open_names_the_file_and_the_backup(
    files: MemoryFiles, path: Path, change: Change, said: str
) -> None:
    with pytest.raises(StateError) as refusal:
        replaced(files, path, change(files)).load()
    assert said in refusal.value.text
    assert str(path) in refusal.value.text
    assert refusal.value.hint == RESTORE


def test_a_disk_that_knows_better_what_to_do_has_its_say(
    files: MemoryFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> bytes:
        raise StateError("cannot read", hint="let the user read it")

    monkeypatch.setattr(files, "read_file", refuse)
    with pytest.raises(StateError, match="cannot read") as refusal:
        standby(files).load()
    assert refusal.value.hint == "let the user read it"


# --- nothing is written over in doubt


@pytest.mark.req("C4")
@pytest.mark.parametrize("secret", [None, b"k" * 31])
def test_keys_whose_key_file_is_lost_get_no_new_one(
    files: MemoryFiles, secret: bytes | None
) -> None:
    del files.content[KEY]
    if secret is not None:
        files.content[KEY] = secret
    before = dict(files.content)
    with pytest.raises(StateError, match=str(KEY)) as refusal:
        standby(files).save(made(1))
    assert "restore it from the standby backup" in refusal.value.hint
    assert files.content == before


def test_a_useless_key_file_where_nothing_is_kept_yet_may_be_removed() -> None:
    files = MemoryFiles()
    files.content[KEY] = b""
    with pytest.raises(StateError, match="is no key file: key file of 0 bytes") as refusal:
        standby(files).save(made(1))
    assert f"if there is no {DB}, remove it" in refusal.value.hint
    assert not standby(files).exists
    del files.content[KEY]
    standby(files).save(made(1))


@pytest.mark.req("C8")
@pytest.mark.parametrize("way", [Failure.BEFORE, Failure.MIDDLE, Failure.AFTER])
@pytest.mark.parametrize("change", [1, 2])
def test_a_first_time_that_was_cut_short_is_begun_again(way: Failure, change: int) -> None:
    files, held = MemoryFiles(), made(2)
    files.fail(change, way, crash=True)
    with pytest.raises(Crash):
        standby(files).save(made(3))
    if standby(files).exists:
        assert len(standby(files).load()) == 3
    standby(files).save(held)
    assert list(standby(files).load()) == list(held)

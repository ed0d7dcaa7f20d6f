"""The sealed container: opens with its keys, and says which of two remedies is needed."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import encoding, keystore
from pki.errors import DamagedError, SealError, WrongKeyError
from pki.keystore import Cost, KeyFile, Password, Unlock, open_sealed, seal

CHEAP = Cost(iterations=1, lanes=1, memory=8)
"""Guessing costs nothing here; what it costs by default is looked at below."""

FILE = KeyFile(bytes(range(32)))
PASSWORD = Password("correct horse", CHEAP)
CONTENT = b"private keys" * 5


def counted(start: int = 0) -> Callable[[int], bytes]:
    """A source that never gives the same bytes twice, and the same ones in each run."""
    state = hashlib.sha256(start.to_bytes(8))

    def draw(length: int) -> bytes:
        state.update(b".")
        return hashlib.shake_256(state.digest()).digest(length)

    return draw


SEALED = seal(CONTENT, FILE, random=counted())
BOTH = seal(CONTENT, FILE, PASSWORD, random=counted())


@given(st.binary(max_size=2000), st.integers(0, 1000))
def test_what_is_sealed_opens(content: bytes, start: int) -> None:
    assert open_sealed(seal(content, FILE, random=counted(start)), FILE) == content


@pytest.mark.parametrize("unlock", [FILE, PASSWORD], ids=["key file", "password"])
def test_nothing_of_the_content_is_in_the_file(unlock: Unlock) -> None:
    sealed = seal(CONTENT, unlock, random=counted())
    assert open_sealed(sealed, unlock) == CONTENT
    assert all(CONTENT[i : i + 8] not in sealed for i in range(len(CONTENT) - 8))
    assert FILE.secret not in sealed
    assert PASSWORD.text.encode() not in sealed


def test_each_of_several_keys_opens_it() -> None:
    assert open_sealed(BOTH, FILE) == open_sealed(BOTH, PASSWORD) == CONTENT
    two = seal(CONTENT, Password("one", CHEAP), Password("two", CHEAP), random=counted())
    assert open_sealed(two, Password("two")) == CONTENT


@pytest.mark.parametrize(
    ("sealed", "unlock"),
    [
        pytest.param(SEALED, KeyFile(bytes(32)), id="another key file"),
        pytest.param(SEALED, PASSWORD, id="a password, where there is a key file"),
        pytest.param(BOTH, Password("Correct horse"), id="another password"),
        pytest.param(BOTH, Password("correct horse "), id="a password with a space"),
        pytest.param(seal(b"", PASSWORD, random=counted()), FILE, id="a key file for a password"),
    ],
)
def test_a_wrong_key_is_named_so(sealed: bytes, unlock: Unlock) -> None:
    with pytest.raises(WrongKeyError):
        open_sealed(sealed, unlock)


@pytest.mark.parametrize(
    ("sealed", "unlock"), [(SEALED, FILE), (BOTH, PASSWORD)], ids=["key file", "password"]
)
def test_every_changed_byte_is_damage_and_never_a_wrong_key(sealed: bytes, unlock: Unlock) -> None:
    for place in range(len(sealed)):
        for mask in (0x01, 0x80):
            changed = bytearray(sealed)
            changed[place] ^= mask
            with pytest.raises(DamagedError):
                open_sealed(bytes(changed), unlock)


def test_every_cut_is_damage() -> None:
    for length in range(len(BOTH)):
        with pytest.raises(DamagedError):
            open_sealed(BOTH[:length], FILE)


@pytest.mark.parametrize("tail", [b"\0", bytes(1000)], ids=len)
def test_something_behind_it_is_damage(tail: bytes) -> None:
    with pytest.raises(DamagedError):
        open_sealed(SEALED + tail, FILE)


def test_damage_is_seen_without_the_right_key_where_the_header_is() -> None:
    # Who has lost the key as well is told the truth about the file.
    changed = bytearray(SEALED)
    changed[40] ^= 1
    with pytest.raises(DamagedError):
        open_sealed(bytes(changed), KeyFile(bytes(32)))


@given(st.binary(max_size=300))
def test_any_bytes_are_damage(data: bytes) -> None:
    for hostile in (data, SEALED[:20] + data):
        with pytest.raises(DamagedError):
            open_sealed(hostile, FILE)


def test_the_parts_of_two_files_do_not_fit_together() -> None:
    # An old header before new content, or the other way round, under the same key file.
    other = seal(CONTENT, FILE, random=counted(7))
    split = len(SEALED) - len(CONTENT) - 16
    for mixed in (SEALED[:split] + other[split:], other[:split] + SEALED[split:]):
        with pytest.raises(DamagedError):
            open_sealed(mixed, FILE)


def test_a_file_that_a_stranger_made_opens_with_no_key_of_ours() -> None:
    theirs = seal(CONTENT, KeyFile(b"x" * 32), random=counted())
    with pytest.raises(WrongKeyError):
        open_sealed(theirs, FILE)


def test_each_file_has_fresh_keys_and_nonces() -> None:
    drawn: list[bytes] = []
    source = counted()

    def draw(length: int) -> bytes:
        drawn.append(source(length))
        return drawn[-1]

    first, second = (seal(CONTENT, FILE, PASSWORD, random=draw) for _ in range(2))
    assert first != second
    assert len(set(drawn)) == len(drawn) == 2 * (2 + 2 * 2)


def _with_header(header: object, content: bytes = bytes(16)) -> bytes:
    """A file with another header and the right digest, as only a writer of files can make it."""
    encoded = encoding.pack(header)
    head = SEALED[:16] + len(encoded).to_bytes(4) + encoded
    return head + hashlib.sha256(head).digest() + content


SLOT = ["keyfile", bytes(32), bytes(12), bytes(48)]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param([2, [SLOT], bytes(12)], id="a later version"),
        pytest.param([1, [], bytes(12)], id="no slot"),
        pytest.param([1, [SLOT] * 9, bytes(12)], id="nine slots"),
        pytest.param([1, [SLOT], bytes(11)], id="a short nonce"),
        pytest.param([1, [["token", *SLOT[1:]]], bytes(12)], id="a slot of another sort"),
        pytest.param([1, [[*SLOT[:3], bytes(47)]], bytes(12)], id="a short wrapped key"),
        pytest.param([1, [["keyfile", bytes(16), *SLOT[2:]]], bytes(12)], id="a short salt"),
        pytest.param([1], id="too few fields"),
        pytest.param(7, id="no header at all"),
        *(
            pytest.param(
                [1, [["password", [bytes(16), *cost], bytes(12), bytes(48)]], bytes(12)],
                id=f"cost {cost}",
            )
            for cost in (
                (0, 1, 64),
                (65, 1, 64),
                (1, 0, 64),
                (1, 65, 1024),
                (1, 1, 7),
                (1, 2, 15),
                (1, 1, 1024 * 1024 + 1),
                (2**40, 1, 64),
            )
        ),
    ],
)
def test_a_hostile_header_is_damage_and_costs_nothing(header: object) -> None:
    for unlock in (FILE, PASSWORD):
        with pytest.raises(DamagedError):
            open_sealed(_with_header(header), unlock)


def test_a_header_of_that_form_is_read() -> None:
    # The control: the same maker, a good header, and then no key fits.
    with pytest.raises(WrongKeyError):
        open_sealed(_with_header([1, [SLOT], bytes(12)]), FILE)


def test_a_password_costs_what_rfc_9106_asks() -> None:
    cost = Password("x").cost
    assert (cost.iterations, cost.lanes, cost.memory) == (3, 4, 64 * 1024)
    assert open_sealed(seal(CONTENT, Password("x"), random=counted()), Password("x")) == CONTENT


def test_the_cost_is_the_files_and_not_the_readers() -> None:
    sealed = seal(CONTENT, Password("x", CHEAP), random=counted())
    assert open_sealed(sealed, Password("x", Cost(2, 2, 64))) == CONTENT


def test_passwords_are_utf_8() -> None:
    sealed = seal(CONTENT, Password("påssword", CHEAP), random=counted())
    assert open_sealed(sealed, Password("påssword")) == CONTENT


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_file_of_another_length_opens_nothing(length: int) -> None:
    with pytest.raises(WrongKeyError, match="expected 32"):
        KeyFile(bytes(length))


def test_our_own_misuse() -> None:
    with pytest.raises(ValueError, match="empty"):
        Password("")
    with pytest.raises(ValueError, match="0 keys"):
        seal(CONTENT, random=counted())
    with pytest.raises(ValueError, match="9 keys"):
        seal(CONTENT, *[FILE] * 9, random=counted())
    with pytest.raises(ValueError, match="content"):
        seal(bytes(keystore.MAX_CONTENT + 1), FILE, random=counted())


def test_secrets_are_not_shown() -> None:
    assert "correct" not in repr(PASSWORD)
    assert FILE.secret.hex() not in repr(FILE)
    assert repr(FILE.secret) not in repr(FILE)
    assert issubclass(WrongKeyError, SealError)

"""Private keys of one component: make before break, crashes at each write, no leak."""

import secrets
from datetime import timedelta
from pathlib import Path

import pytest

from agents.member.keyring import Keyring
from agents.runtime import logs
from agents.runtime.errors import StateError
from pki import certificates, encoding, keys, keystore
from pki.certificates import Kind
from tests.support.deployment import Deployment
from tests.support.files import Crash, Failure, MemoryFiles
from tests.support.logs import logged

PATH = Path("/state/keys.db")
KEY_PATH = Path("/state/keys.key")
WINDOW = timedelta(hours=4)
LOST = [Failure.BEFORE, Failure.MIDDLE, Failure.AFTER]
"""How an atomic write can end in a crash; a torn file is a disk that lied."""


def reopened(files: MemoryFiles) -> Keyring:
    return Keyring(PATH, files)


def seen(keyring: Keyring) -> tuple[object, ...]:
    """All that a keyring holds, as values."""
    return (
        keyring.id,
        tuple((c.kind, keys.private_bytes(c.key), c.chain, c.window) for c in keyring.credentials),
        tuple(sorted(keyring.root_ids)),
    )


class TestFirstStart:
    def test_makes_an_identity_that_the_next_start_finds(self) -> None:
        files = MemoryFiles()
        first = Keyring(PATH, files)
        assert reopened(files).id == first.id
        assert first.id == keys.key_id(first.identity_spki)[:16]

    def test_writes_both_files_for_the_owner_alone(self) -> None:
        files = MemoryFiles()
        Keyring(PATH, files)
        assert files.modes == {PATH: 0o600, KEY_PATH: 0o600}

    def test_two_components_have_nothing_in_common(self) -> None:
        assert Keyring(PATH, MemoryFiles()).id != Keyring(PATH, MemoryFiles()).id

    @pytest.mark.parametrize("change", [1, 2])
    @pytest.mark.parametrize("failure", LOST)
    @pytest.mark.req("C8")
    def test_a_crash_leaves_something_that_starts(self, change: int, failure: Failure) -> None:
        files = MemoryFiles()
        files.fail(change, failure, crash=True)
        with pytest.raises(Crash):
            Keyring(PATH, files)
        again = reopened(files)
        assert reopened(files).id == again.id


class TestMakeBeforeBreak:
    def test_a_prepared_key_is_the_same_until_it_is_activated(self) -> None:
        files = MemoryFiles()
        keyring = Keyring(PATH, files)
        prepared = keys.private_bytes(keyring.prepare(Kind.CLIENT_TLS))
        assert keys.private_bytes(keyring.prepare(Kind.CLIENT_TLS)) == prepared
        assert keys.private_bytes(reopened(files).prepare(Kind.CLIENT_TLS)) == prepared

    @pytest.mark.req("A7")
    def test_the_key_is_on_disk_before_anybody_can_ask_for_its_certificate(self) -> None:
        files = MemoryFiles()
        keyring = Keyring(PATH, files)
        files.fail(1, Failure.BEFORE)
        with pytest.raises(StateError):
            keyring.prepare(Kind.CLIENT_TLS)
        prepared = keys.private_bytes(keyring.prepare(Kind.CLIENT_TLS))
        assert keys.private_bytes(reopened(files).prepare(Kind.CLIENT_TLS)) == prepared

    @pytest.mark.req("A8")
    def test_activation_takes_key_and_whole_chain_together(self) -> None:
        files, site = MemoryFiles(), Deployment()
        keyring = Keyring(PATH, files)
        key = keys.private_bytes(keyring.prepare(Kind.CLIENT_TLS))
        site.certify(keyring, Kind.CLIENT_TLS)
        held = reopened(files).credential(Kind.CLIENT_TLS)
        assert held is not None
        assert keys.private_bytes(held.key) == key
        assert held.root == site.root_id()
        assert [certificates.read(der).kind for der in held.chain] == [
            Kind.CLIENT_TLS,
            Kind.CLIENT_CA,
            Kind.ROOT,
        ]

    def test_the_old_credential_is_in_use_until_the_new_one_is(self) -> None:
        keyring, site = Keyring(PATH, MemoryFiles()), Deployment()
        old = site.certify(keyring, Kind.CLIENT_TLS)
        keyring.prepare(Kind.CLIENT_TLS)
        assert keyring.credential(Kind.CLIENT_TLS) is old
        new = site.certify(keyring, Kind.CLIENT_TLS)
        assert keyring.credential(Kind.CLIENT_TLS) is new
        assert new.leaf.key_id != old.leaf.key_id

    def test_a_key_is_not_used_a_second_time(self) -> None:
        keyring, site = Keyring(PATH, MemoryFiles()), Deployment()
        held = site.certify(keyring, Kind.CLIENT_TLS)
        assert keys.key_id(keyring.prepare(Kind.CLIENT_TLS).public_key()) != held.leaf.key_id

    def test_a_certificate_of_another_key_is_refused(self) -> None:
        keyring, site = Keyring(PATH, MemoryFiles()), Deployment()
        old = site.certify(keyring, Kind.CLIENT_TLS)
        keyring.prepare(Kind.CLIENT_TLS)
        stranger = site.issue(keys.generate(), Kind.CLIENT_TLS, keyring.id)
        with pytest.raises(StateError, match="not for the prepared"):
            keyring.activate(Kind.CLIENT_TLS, stranger, WINDOW)
        assert keyring.credential(Kind.CLIENT_TLS) is old

    def test_nothing_is_activated_that_was_not_prepared(self) -> None:
        keyring, site = Keyring(PATH, MemoryFiles()), Deployment()
        held = site.certify(keyring, Kind.CLIENT_TLS)
        with pytest.raises(StateError, match="not for the prepared"):
            keyring.activate(Kind.CLIENT_TLS, held.chain, WINDOW)

    def test_the_key_of_one_kind_is_not_that_of_another(self) -> None:
        keyring, site = Keyring(PATH, MemoryFiles()), Deployment()
        key = keyring.prepare(Kind.ZONE_SERVER_TLS)
        chain = site.issue(key, Kind.ZONE_SERVER_TLS, keyring.id)
        keyring.prepare(Kind.CLIENT_CA)
        with pytest.raises(StateError):
            keyring.activate(Kind.CLIENT_CA, chain, WINDOW)

    def test_another_identity_has_no_certificate_of_the_first(self) -> None:
        files, site = MemoryFiles(), Deployment()
        keyring = Keyring(PATH, files)
        before = keyring.id
        site.certify(keyring, Kind.CLIENT_TLS)
        keyring.renew_identity()
        again = reopened(files)
        assert again.id == keyring.id != before
        assert again.credentials == ()

    def test_a_new_identity_has_nothing_that_a_copy_may_have(self) -> None:
        files = MemoryFiles()
        keyring = Keyring(PATH, files)
        prepared, root = keyring.prepare(Kind.CLIENT_TLS), keys.generate()
        keyring.keep_roots({keys.key_id(root.public_key()): root})
        before = keyring.id
        keyring.renew_identity()
        for held in (keyring, reopened(files)):
            assert held.id != before
            assert held.root_ids == frozenset()
        made = keyring.prepare(Kind.CLIENT_TLS)
        assert keys.private_bytes(made) != keys.private_bytes(prepared)


class TestCrash:
    """Each operation that writes, with its write failing in each way."""

    SITE = Deployment()

    @pytest.mark.parametrize("failure", LOST)
    @pytest.mark.parametrize("operation", ["activate", "keep_roots", "drop_root", "renew_identity"])
    @pytest.mark.req("C8")
    def test_leaves_the_old_state_or_the_new_one(self, operation: str, failure: Failure) -> None:
        files = MemoryFiles()
        keyring = Keyring(PATH, files)
        self.SITE.certify(keyring, Kind.CLIENT_TLS)
        keyring.prepare(Kind.CLIENT_TLS)
        keyring.keep_roots({self.SITE.root_id(): self.SITE.newest_key})
        before = seen(reopened(files))

        files.fail(1, failure, crash=True)
        with pytest.raises(Crash):
            self.operate(keyring, operation)
        after = seen(reopened(files))
        if failure is not Failure.AFTER:
            assert after == before
        else:
            assert after != before

    @pytest.mark.parametrize("failure", LOST)
    def test_a_prepared_key_survives_a_crash_of_its_activation(self, failure: Failure) -> None:
        files = MemoryFiles()
        keyring = Keyring(PATH, files)
        key = keyring.prepare(Kind.CLIENT_TLS)
        chain = self.SITE.issue(key, Kind.CLIENT_TLS, keyring.id)
        files.fail(1, failure, crash=True)
        with pytest.raises(Crash):
            keyring.activate(Kind.CLIENT_TLS, chain, WINDOW)
        again = reopened(files)
        if again.credential(Kind.CLIENT_TLS) is None:
            again.activate(Kind.CLIENT_TLS, chain, WINDOW)
        held = again.credential(Kind.CLIENT_TLS)
        assert held is not None
        assert keys.private_bytes(held.key) == keys.private_bytes(key)

    def test_a_write_that_fails_changes_nothing_in_memory(self) -> None:
        files = MemoryFiles()
        keyring = Keyring(PATH, files)
        self.SITE.certify(keyring, Kind.CLIENT_TLS)
        before = seen(keyring)
        for operation in ("activate", "keep_roots", "renew_identity"):
            keyring.prepare(Kind.CLIENT_TLS)
            files.fail(1, Failure.BEFORE)
            with pytest.raises(StateError):
                self.operate(keyring, operation)
            assert seen(keyring) == before

    @pytest.mark.req("B3")
    def test_a_root_that_could_not_be_kept_is_taken_from_the_disk(self) -> None:
        files = MemoryFiles()
        keyring = Keyring(PATH, files)
        before = seen(keyring)
        files.fail(1, Failure.AFTER)
        with pytest.raises(StateError):
            keyring.keep_roots({self.SITE.root_id(): self.SITE.newest_key})
        assert reopened(files).root_ids == {self.SITE.root_id()}
        keyring.keep_roots({})
        assert seen(reopened(files)) == before
        written = files.content[PATH]
        keyring.keep_roots({})
        assert files.content[PATH] is written

    @pytest.mark.req("B3")
    def test_a_root_that_is_not_kept_is_on_no_disk(self) -> None:
        files = MemoryFiles()
        keyring = Keyring(PATH, files)
        first, second = self.SITE.keys[0], self.SITE.keys[1]
        ids = [keys.key_id(key.public_key()) for key in (first, second)]
        keyring.keep_roots(dict(zip(ids, (first, second), strict=True)))
        keyring.keep_roots({ids[1]: second})
        assert keyring.root(ids[0]) is None
        assert reopened(files).root_ids == {ids[1]}

    def operate(self, keyring: Keyring, operation: str) -> None:
        match operation:
            case "activate":
                self.SITE.certify(keyring, Kind.CLIENT_TLS)
            case "keep_roots":
                extra = self.SITE.keys[1]
                held = dict.fromkeys(keyring.root_ids, self.SITE.newest_key)
                keyring.keep_roots({**held, keys.key_id(extra.public_key()): extra})
            case "drop_root":
                keyring.keep_roots({})
            case _:
                keyring.renew_identity()


class TestWrongKeyFile:
    """C4: a start without the right key stops, and makes nothing."""

    def refused(self, files: MemoryFiles) -> StateError:
        before, changes = dict(files.content), files.changes
        with pytest.raises(StateError) as caught:
            Keyring(PATH, files)
        assert files.content == before
        assert files.changes == changes
        assert caught.value.hint
        return caught.value

    def made(self) -> MemoryFiles:
        files = MemoryFiles()
        Keyring(PATH, files)
        return files

    @pytest.mark.req("C4")
    def test_missing(self) -> None:
        files = self.made()
        del files.content[KEY_PATH]
        assert "missing" in str(self.refused(files))

    @pytest.mark.req("C4")
    def test_of_another_store(self) -> None:
        files, other = self.made(), self.made()
        files.content[KEY_PATH] = other.content[KEY_PATH]
        assert "does not open" in str(self.refused(files))

    @pytest.mark.parametrize("data", [b"", b"short", bytes(32)], ids=["empty", "short", "zeros"])
    def test_overwritten(self, data: bytes) -> None:
        files = self.made()
        files.content[KEY_PATH] = data
        self.refused(files)

    def test_a_torn_key_file_without_a_store_is_named(self) -> None:
        files = MemoryFiles()
        files.content[KEY_PATH] = bytes(16)
        assert "is no key file" in str(self.refused(files))

    def test_a_damaged_store_is_named_and_kept(self) -> None:
        files = self.made()
        sealed = files.content[PATH]
        for place in range(0, len(sealed), 7):
            files.content[PATH] = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
            self.refused(files)

    def test_a_cut_store_is_named_and_kept(self) -> None:
        files = self.made()
        sealed = files.content[PATH]
        for length in (0, 1, 40, len(sealed) // 2, len(sealed) - 1):
            files.content[PATH] = sealed[:length]
            self.refused(files)


def _sealed(**changes: object) -> list[object]:
    fields: dict[str, object] = {
        "version": 1,
        "identity": keys.private_bytes(keys.generate()),
        "credentials": [],
        "prepared": [],
        "roots": [],
    }
    return list((fields | changes).values())


def _credential(**changes: object) -> list[object]:
    root = Deployment().chain.current_root.der
    fields: dict[str, object] = {
        "kind": "client-tls",
        "key": keys.private_bytes(keys.generate()),
        "chain": [root, root],
        "window": 3600,
    }
    return list((fields | changes).values())


class TestForm:
    """Whoever has the key file can seal anything: what is read is checked."""

    ROOT = keys.generate()

    def opened(self, content: list[object]) -> Keyring:
        files, secret = MemoryFiles(), secrets.token_bytes(32)
        files.write_atomic(KEY_PATH, secret)
        sealed = keystore.seal(
            encoding.pack(content), keystore.KeyFile(secret), random=secrets.token_bytes
        )
        files.write_atomic(PATH, sealed)
        return Keyring(PATH, files)

    def test_a_sealed_file_of_this_form_is_read(self) -> None:
        root_id = keys.key_id(self.ROOT.public_key())
        roots = [[root_id, keys.private_bytes(self.ROOT)]]
        held = self.opened(_sealed(credentials=[_credential()], roots=roots))
        assert held.root_ids == {root_id}
        assert held.credential(Kind.CLIENT_TLS) is not None

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(_sealed(version=2), id="a later version"),
            pytest.param(_sealed(credentials=[_credential(chain=[])]), id="no chain"),
            pytest.param(
                _sealed(credentials=[_credential(chain=[b"no", b"no"])]), id="a chain of noise"
            ),
            pytest.param(_sealed(credentials=[_credential(window=-1)]), id="a window below zero"),
            pytest.param(
                _sealed(credentials=[_credential(window=2**31 + 1)]), id="a window beyond 68 years"
            ),
            pytest.param(
                _sealed(credentials=[_credential(kind="emperor")]), id="a kind that there is not"
            ),
            pytest.param(
                _sealed(roots=[[b"short", keys.private_bytes(ROOT)]]), id="a short key id"
            ),
        ],
    )
    def test_a_sealed_file_of_another_form_is_damaged(self, content: list[object]) -> None:
        with pytest.raises(StateError, match="damaged"):
            self.opened(content)


class TestSecrets:
    """A4: a private key is in no text."""

    @pytest.mark.req("A4")
    def test_are_in_no_repr_and_in_no_log(self) -> None:
        site, keyring = Deployment(), Keyring(PATH, MemoryFiles())
        held = site.certify(keyring, Kind.CLIENT_TLS)
        numbers = [
            held.key.private_numbers().private_value,
            keyring.identity.private_numbers().private_value,
        ]
        with logged() as lines:
            logs.get_logger().info("daemon.started", version=held, role=keyring)
        shown = repr(held) + str(held) + repr(keyring) + repr(vars(keyring)) + repr(lines)
        for number in numbers:
            assert str(number) not in shown
            assert format(number, "x") not in shown
        assert "PrivateKey" not in repr(held)

    @pytest.mark.req("A4")
    def test_are_not_readable_in_the_file(self) -> None:
        files, site = MemoryFiles(), Deployment()
        keyring = Keyring(PATH, files)
        held = site.certify(keyring, Kind.CLIENT_TLS)
        prepared = keyring.prepare(Kind.CLIENT_TLS)
        for key in (held.key, keyring.identity, prepared):
            number = key.private_numbers().private_value.to_bytes(32)
            assert number not in files.content[PATH]

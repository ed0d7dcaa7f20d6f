"""The next roots, made ahead: sixteen private keys that are committed to and not yet used.

They lie in `standby.db`, apart from `pki.db`: one copy of one file must not hold a run of
roots. Its key file lies in another folder. Nothing is kept in memory: the
file is opened while an entry is signed, and written whole.

Custody `host`: survives the theft of pki.db, its backups and the memory; not of the machine.
"""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from agents.runtime.errors import StateError
from agents.runtime.files import Files
from pki import encoding, keys, keystore
from pki.errors import PKIError
from pki.keys import KeyId, PrivateKey

__all__ = ["Standby"]

MAX_FILE = 64 << 10
KEY_FILE_BYTES = 32
RESTORE = "restore both from the standby backup; the present root goes on working"


class Standby:
    """The standby keys of one server.

    Args:
        path: `standby.db`.
        key_path: its key file, in another folder.
    """

    def __init__(
        self,
        path: Path,
        key_path: Path,
        files: Files,
        *,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._path = path
        self._key_path = key_path
        self._files = files
        self._random = random

    @property
    def exists(self) -> bool:
        """Whether the file is there."""
        return self._files.exists(self._path)

    def load(self) -> dict[KeyId, PrivateKey]:
        """Every standby key, in the order of their turns. Drop what is returned soon.

        Raises:
            StateError: the file or its key is missing, damaged, or they do not fit.
        """
        try:
            content = keystore.open_sealed(
                self._files.read_file(self._path, MAX_FILE), self._unlock()
            )
            held = [
                keys.load_private(encoding.as_bytes(item, what="standby key"))
                for item in encoding.as_list(
                    encoding.unpack(content, max_bytes=MAX_FILE), what="standby keys"
                )
            ]
        except StateError as exc:
            raise StateError(exc.text, hint=exc.hint or RESTORE) from exc
        except PKIError as exc:
            raise StateError(
                f"{self._path} does not open with {self._key_path}: {exc}", hint=RESTORE
            ) from exc
        return {keys.key_id(key.public_key()): key for key in held}

    def save(self, held: Mapping[KeyId, PrivateKey]) -> None:
        """Keep these keys and no other; durable on return.

        Raises:
            StateError: the key file is missing though there is what it opens, or is none; or the
                disk says no.
        """
        if not self._files.exists(self._key_path):
            if self.exists:
                raise StateError(
                    f"{self._key_path} is missing", hint="restore it from the standby backup"
                )
            self._files.write_atomic(self._key_path, self._random(KEY_FILE_BYTES))
        try:
            unlock = self._unlock()
        except PKIError as exc:
            raise StateError(
                f"{self._key_path} is no key file: {exc}",
                hint=f"restore it from the standby backup; if there is no {self._path}, remove it",
            ) from exc
        content = encoding.pack([keys.private_bytes(key) for key in held.values()])
        self._files.write_atomic(self._path, keystore.seal(content, unlock, random=self._random))

    def _unlock(self) -> keystore.KeyFile:
        return keystore.KeyFile(self._files.read_file(self._key_path, MAX_FILE))

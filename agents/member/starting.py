"""The first steps of every component that is given a bundle: state, keys, trust, its id."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.member.keyring import Keyring
from agents.member.member import MemberState, open_bundle_file, open_state
from agents.member.trust import Trust
from agents.runtime import logs
from agents.runtime.clock import Clock
from agents.runtime.errors import StateError
from agents.runtime.files import DISK
from agents.runtime.lock import lock_state
from agents.runtime.logs import Logger
from agents.runtime.statefiles import LEDGER
from pki.names import Role

__all__ = ["KEYS", "opened"]

KEYS = "keys.db"


@contextmanager
def opened(
    folder: Path,
    role: Role,
    *,
    bundle: Path,
    expect: str | None,
    clock: Clock,
    log: Logger,
) -> Iterator[tuple[Keyring, Trust]]:
    """Take the state directory, and open what is in it or make what a first start makes.

    Raises:
        StateError: it is somebody else's or in use, there is no bundle, or a file is damaged.
    """
    with lock_state(folder, role.value):
        keys = folder / KEYS
        if Trust.exists(folder / LEDGER, DISK) and not DISK.exists(keys):
            raise StateError(
                f"{keys} is missing, and there is a ledger that it belongs to",
                hint="restore it from a backup, or start over with an empty state directory: it"
                " enrols again with the bundle, as a new component",
            )
        if not Trust.exists(folder / LEDGER, DISK):
            # Before a key is made: a bundle that is refused leaves no trace (D5).
            open_bundle_file(bundle, files=DISK, expect=expect)
        # Keys before the ledger: a crash between the two must not leave a ledger without keys.
        keyring = Keyring(keys, DISK)
        logs.identify(keyring.id.hex())
        trust = open_state(MemberState(folder), bundle=bundle, expect=expect, clock=clock, log=log)
        yield keyring, trust

"""The one owner of a state directory."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agents.runtime.errors import Exit, StateError
from agents.runtime.lock import lock_state


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "client"
    with lock_state(folder, "client") as lock:
        assert lock.folder == folder
        assert mode(folder) == 0o700
        assert mode(folder / "lock") == 0o600
        assert (folder / "lock").read_text() == f"{os.getpid()} client\n"


def test_it_is_the_owners_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        lock_state(tmp_path / "client", "client").release()
    finally:
        os.umask(before)
    assert mode(tmp_path / "client") == 0o700
    assert mode(tmp_path / "client" / "lock") == 0o600


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "client"
    with lock_state(folder, "client"):
        with pytest.raises(StateError) as caught:
            lock_state(folder, "client")
        assert f"in use by process {os.getpid()}" in caught.value.text
        assert f"kill {os.getpid()}" in caught.value.hint
        assert caught.value.exit_code == Exit.REFUSED
    lock_state(folder, "client").release()


def test_who_is_refused_keeps_no_handle(tmp_path: Path) -> None:
    with lock_state(tmp_path / "client", "client"):
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(StateError, match="in use"):
            lock_state(tmp_path / "client", "client")
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o755, 0o710, 0o701])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "client"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(StateError, match=f"mode {bits:04o}") as caught:
        lock_state(folder, "client")
    assert caught.value.hint == f"chmod 700 {folder}"
    assert list(folder.iterdir()) == []


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(StateError, match=f"belongs to uid {own}"):
        lock_state(tmp_path, "client")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_another_role_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    lock_state(folder, "hub").release()
    with pytest.raises(StateError, match="that of a hub, not of a client"):
        lock_state(folder, "client")
    lock_state(folder, "hub").release()


def test_of_a_longer_line_nothing_is_left_behind_a_shorter_one(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "lock").write_text("1" + "0" * 20 + " hub\n")
    lock_state(folder, "hub").release()
    assert (folder / "lock").read_text() == f"{os.getpid()} hub\n"


@pytest.mark.req("C8")
@pytest.mark.parametrize("torn", [b"", b"12", b"12 h", b"12 hub", b"12 hub\n3 hub\n", b"\0\0"])
def test_a_lock_file_that_was_cut_off_is_nobodys(tmp_path: Path, torn: bytes) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "lock").write_bytes(torn)
    lock_state(folder, "zone-server").release()
    assert (folder / "lock").read_text() == f"{os.getpid()} zone-server\n"


@pytest.mark.req("C8")
def test_a_lock_that_cannot_be_written_is_named_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int, _data: bytes, _where: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "state"
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StateError, match="no space left") as caught:
            lock_state(folder, "client")
    assert "free some space" in caught.value.hint
    lock_state(folder, "client").release()


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_handle: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StateError, match=r"cannot lock .*no locks available"):
        lock_state(tmp_path / "client", "client")


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (folder / "lock").symlink_to(victim)
    with pytest.raises(StateError, match="cannot open"):
        lock_state(folder, "client")
    assert victim.read_bytes() == b"precious"


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="cannot use state directory"):
        lock_state(tmp_path / "file", "client")


@pytest.mark.sockets
def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    folder = tmp_path / "client"
    program = (
        "import sys; from pathlib import Path; from agents.runtime.lock import lock_state\n"
        f"lock = lock_state(Path({str(folder)!r}), 'client'); print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(StateError, match=f"in use by process {process.pid}"):
            lock_state(folder, "client")
        process.send_signal(signal.SIGKILL)
        process.wait()
        lock_state(folder, "client").release()

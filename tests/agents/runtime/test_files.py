import errno
import os
import signal
import stat
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime import files
from agents.runtime.errors import DamagedError, Exit, MissingError, StateError
from agents.runtime.files import TwoGenerations, lock_state
from tests.support.files import Crash, Failure, MemoryFiles

PATH = Path("/state/ledger")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestDisk:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "state"
        files.write_atomic(path, b"one")
        files.write_atomic(path, b"two")
        assert files.read_file(path) == b"two"
        assert mode(path) == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["state"]

    def test_the_umask_does_not_decide_the_mode(self, tmp_path: Path) -> None:
        before = os.umask(0o777)
        try:
            files.write_atomic(tmp_path / "bundle", b"public", mode=0o644)
        finally:
            os.umask(before)
        assert mode(tmp_path / "bundle") == 0o644

    def test_a_planted_temporary_link_is_not_followed(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        (tmp_path / ".state.new").symlink_to(victim)
        files.write_atomic(tmp_path / "state", b"secret")
        assert victim.read_bytes() == b"precious"
        assert files.read_file(tmp_path / "state") == b"secret"

    def test_a_failed_write_leaves_the_old_content(self, tmp_path: Path) -> None:
        path = tmp_path / "state"
        path.mkdir()
        (path / "inside").write_bytes(b"")
        with pytest.raises(StateError, match="cannot write"):
            files.write_atomic(path, b"new")
        assert [entry.name for entry in tmp_path.iterdir()] == ["state"]

    def test_a_missing_folder_has_a_hint(self, tmp_path: Path) -> None:
        with pytest.raises(StateError, match="no such file or directory") as caught:
            files.write_atomic(tmp_path / "none" / "state", b"")
        assert caught.value.hint == "create the folder first"

    def test_limits_and_absence_have_their_own_errors(self, tmp_path: Path) -> None:
        path = tmp_path / "state"
        with pytest.raises(MissingError):
            files.read_file(path)
        files.write_atomic(path, b"12345")
        assert files.read_file(path, 5) == b"12345"
        with pytest.raises(StateError, match="limit of 4 bytes"):
            files.read_file(path, 4)
        with pytest.raises(StateError, match="cannot read"):
            files.read_file(tmp_path)

    def test_write_new_replaces_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "bundle"
        files.write_new(path, b"first")
        with pytest.raises(StateError, match="exists already"):
            files.write_new(path, b"second")
        assert path.read_bytes() == b"first"
        assert mode(path) == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]

    def test_remove_is_idempotent(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        files.write_atomic(path, b"x")
        files.DISK.remove(path)
        files.DISK.remove(path)
        assert not files.DISK.exists(path)


class TestTwoGenerations:
    def test_nothing_was_written(self) -> None:
        state = TwoGenerations(PATH, MemoryFiles())
        assert not state.exists
        with pytest.raises(MissingError):
            state.read()

    def test_the_newest_is_read_also_by_another_reader(self) -> None:
        disk = MemoryFiles()
        state = TwoGenerations(PATH, disk)
        for number in range(1, 6):
            content = b"content %d" % number
            assert state.write(content) == number
            assert state.read() == (content, number)
            assert TwoGenerations(PATH, disk).read() == (content, number)
        assert len(disk.content) == 2
        assert set(disk.modes.values()) == {0o600}

    @given(content=st.binary(max_size=200), place=st.integers(min_value=0), bit=st.integers(0, 7))
    def test_any_flipped_bit_falls_back(self, content: bytes, place: int, bit: int) -> None:
        disk = MemoryFiles()
        state = TwoGenerations(PATH, disk)
        state.write(b"previous")
        state.write(content)
        newest = Path("/state/ledger.0")
        damaged = bytearray(disk.content[newest])
        damaged[place % len(damaged)] ^= 1 << bit
        disk.content[newest] = bytes(damaged)
        assert state.read() == (b"previous", 1)
        assert state.torn == (newest,)
        # The next write replaces the damaged one, never the whole one.
        assert TwoGenerations(PATH, disk).write(b"next") == 2
        assert TwoGenerations(PATH, disk).read() == (b"next", 2)
        assert disk.content[Path("/state/ledger.1")].endswith(b"previous")

    def test_any_cut_falls_back(self) -> None:
        disk = MemoryFiles()
        state = TwoGenerations(PATH, disk)
        state.write(b"previous")
        state.write(b"newest")
        newest = Path("/state/ledger.0")
        whole = disk.content[newest]
        for length in range(len(whole)):
            disk.content[newest] = whole[:length]
            assert state.read() == (b"previous", 1)

    @pytest.mark.parametrize("names", [["ledger.0", "ledger.1"], ["ledger.1"]])
    def test_damage_of_all_there_is_is_not_absence(self, names: list[str]) -> None:
        disk = MemoryFiles()
        for name in names:
            disk.content[PATH.with_name(name)] = b"zeros"
        state = TwoGenerations(PATH, disk)
        assert state.exists
        with pytest.raises(DamagedError, match="checksum") as caught:
            state.read()
        assert caught.value.exit_code == Exit.REFUSED
        with pytest.raises(DamagedError):
            state.write(b"never over the evidence")
        assert disk.changes == 0

    @pytest.mark.parametrize(("failure", "crash"), list(product(Failure, [True, False])))
    def test_each_failing_write_leaves_the_old_or_the_new(
        self, failure: Failure, crash: bool
    ) -> None:
        disk = MemoryFiles()
        state = TwoGenerations(PATH, disk)
        state.write(b"1")
        state.write(b"2")
        disk.fail(1, failure, crash=crash)
        with pytest.raises(Crash if crash else StateError):
            state.write(b"3")
        content, number = TwoGenerations(PATH, disk).read()
        assert (content, number) == ((b"3", 3) if failure is Failure.AFTER else (b"2", 2))
        again = TwoGenerations(PATH, disk)
        assert again.write(b"4") == number + 1
        assert again.read() == (b"4", number + 1)

    def test_the_limit_is_of_the_content(self) -> None:
        state = TwoGenerations(PATH, MemoryFiles(), max_bytes=10)
        state.write(b"x" * 10)
        assert state.read()[0] == b"x" * 10
        with pytest.raises(ValueError, match="11 bytes"):
            state.write(b"x" * 11)


class TestLock:
    def test_a_missing_directory_is_made_for_its_owner_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "lib" / "client"
        with lock_state(folder, "client") as lock:
            assert lock.folder == folder
            assert mode(folder) == 0o700
            assert mode(folder / "lock") == 0o600
            assert (folder / "lock").read_text() == f"{os.getpid()} client\n"

    def test_a_second_daemon_is_refused_with_the_pid_of_the_first(self, tmp_path: Path) -> None:
        folder = tmp_path / "client"
        with lock_state(folder, "client"):
            with pytest.raises(StateError) as caught:
                lock_state(folder, "client")
            assert f"in use by process {os.getpid()}" in caught.value.text
            assert f"kill {os.getpid()}" in caught.value.hint
            assert caught.value.exit_code == Exit.REFUSED
        lock_state(folder, "client").release()

    @pytest.mark.parametrize("bits", [0o777, 0o770, 0o755, 0o710, 0o701])
    def test_a_directory_that_others_may_enter_is_refused(self, tmp_path: Path, bits: int) -> None:
        folder = tmp_path / "client"
        folder.mkdir()
        folder.chmod(bits)
        with pytest.raises(StateError, match=f"mode {bits:04o}") as caught:
            lock_state(folder, "client")
        assert caught.value.hint == f"chmod 700 {folder}"
        assert list(folder.iterdir()) == []

    def test_a_directory_of_another_user_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        with pytest.raises(StateError, match=f"belongs to uid {own}"):
            lock_state(tmp_path, "client")
        assert list(tmp_path.iterdir()) == []

    def test_a_directory_of_another_role_is_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "state"
        lock_state(folder, "hub").release()
        with pytest.raises(StateError, match="that of a hub, not of a client"):
            lock_state(folder, "client")
        lock_state(folder, "hub").release()

    @pytest.mark.req("C8")
    @pytest.mark.parametrize("torn", [b"", b"12", b"12 h", b"12 hub", b"12 hub\n3 hub\n", b"\0\0"])
    def test_a_lock_file_that_was_cut_off_is_nobodys(self, tmp_path: Path, torn: bytes) -> None:
        folder = tmp_path / "state"
        folder.mkdir(mode=0o700)
        (folder / "lock").write_bytes(torn)
        lock_state(folder, "zone-server").release()
        assert (folder / "lock").read_text() == f"{os.getpid()} zone-server\n"

    @pytest.mark.req("C8")
    def test_a_lock_that_cannot_be_written_is_named_and_given_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    def test_a_planted_link_is_not_followed(self, tmp_path: Path) -> None:
        folder = tmp_path / "state"
        folder.mkdir(mode=0o700)
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        (folder / "lock").symlink_to(victim)
        with pytest.raises(StateError, match="cannot open"):
            lock_state(folder, "client")
        assert victim.read_bytes() == b"precious"

    def test_a_file_is_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StateError, match="cannot use state directory"):
            lock_state(tmp_path / "file", "client")

    @pytest.mark.sockets
    def test_the_lock_ends_with_its_process(self, tmp_path: Path) -> None:
        folder = tmp_path / "client"
        program = (
            "import sys; from pathlib import Path; from agents.runtime.files import lock_state\n"
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

import hashlib
import os
import stat
import tracemalloc
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtime import files
from agents.runtime.errors import DamagedError, Exit, MissingError, StateError
from agents.runtime.files import TwoGenerations
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

    def test_a_secret_is_never_readable_by_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        modes: list[int] = []
        real = os.open

        def watched(path: Path, flags: int, bits: int = 0o777) -> int:
            handle = real(path, flags, bits)
            if flags & os.O_CREAT:
                modes.append(mode(path))
            return handle

        monkeypatch.setattr(os, "open", watched)
        before = os.umask(0)
        try:
            files.write_atomic(tmp_path / "key", b"secret")
            files.write_new(tmp_path / "new", b"secret")
        finally:
            os.umask(before)
        assert modes == [0o600, 0o600]

    def test_a_planted_temporary_link_is_not_followed(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        (tmp_path / ".state.new").symlink_to(victim)
        files.write_atomic(tmp_path / "state", b"secret")
        assert victim.read_bytes() == b"precious"
        assert files.read_file(tmp_path / "state") == b"secret"

    def test_a_link_that_is_planted_meanwhile_is_not_followed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        real = Path.unlink

        def raced(path: Path, missing_ok: bool = False) -> None:
            real(path, missing_ok=missing_ok)
            if not path.is_symlink():
                path.symlink_to(victim)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", raced)
            with pytest.raises(StateError, match="file exists"):
                files.write_atomic(tmp_path / "state", b"secret")
        assert victim.read_bytes() == b"precious"

    def test_a_file_is_synced_before_it_has_its_name_and_the_folder_after(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[str] = []
        sync, replace, link = os.fsync, os.replace, os.link

        def watched_sync(handle: int) -> None:
            done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
            sync(handle)

        def watched_replace(*names: Path) -> None:
            done.append("replace")
            replace(*names)

        def watched_link(*names: Path) -> None:
            done.append("link")
            link(*names)

        monkeypatch.setattr(os, "fsync", watched_sync)
        monkeypatch.setattr(os, "replace", watched_replace)
        monkeypatch.setattr(os, "link", watched_link)
        files.write_atomic(tmp_path / "state", b"one")
        files.write_new(tmp_path / "new", b"one")
        files.DISK.remove(tmp_path / "new")
        assert done == ["file", "replace", "folder", "file", "link", "folder", "folder"]

    def test_what_the_disk_takes_in_pieces_is_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.write
        monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))
        files.write_atomic(tmp_path / "state", b"0123456789")
        assert (tmp_path / "state").read_bytes() == b"0123456789"

    def test_a_small_file_takes_the_memory_of_its_size(self, tmp_path: Path) -> None:
        files.write_atomic(tmp_path / "state", b"x")
        tracemalloc.start()
        try:
            files.read_file(tmp_path / "state")
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()

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
        files.DISK.remove(tmp_path / "no folder" / "file")


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

    def test_another_format_with_its_checksum_is_damage(self) -> None:
        disk = MemoryFiles()
        TwoGenerations(PATH, disk).write(b"x")
        (slot,) = disk.content
        head = b"anchorline-2gen\x02" + disk.content[slot][16:32]
        disk.content[slot] = head + hashlib.sha256(head + b"x").digest() + b"x"
        with pytest.raises(DamagedError):
            TwoGenerations(PATH, disk).read()

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

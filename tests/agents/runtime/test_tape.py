from pathlib import Path

import pytest

from agents.runtime.tape import DiskTape


def test_it_grows_is_cut_and_grows_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"head")
    tape = DiskTape(path)
    tape.write(b"first", 4)
    tape.write(b"second", 9)
    tape.cut(9)
    tape.write(b"third", 9)
    tape.sync()
    tape.close()
    assert path.read_bytes() == b"headfirstthird"


def test_it_knows_whether_it_has_lost_its_name(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "other"
    path.write_bytes(b"")
    other.write_bytes(b"")
    tape = DiskTape(path)
    assert tape.is_named()
    other.replace(path)
    assert not tape.is_named()
    path.unlink()
    assert not tape.is_named()
    tape.close()


def test_it_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DiskTape(tmp_path / "log")
    assert not list(tmp_path.iterdir())

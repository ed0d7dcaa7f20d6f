"""Files that a command makes where it is told to."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.cli.files import refuse_existing, write_new
from agents.runtime.errors import AgentError
from tests.agents.cli.programs import call


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """The system takes so many bytes of a file, and then says that it is too large."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_cannot_be_written_whole_is_not_left(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    with room_for(100):
        ended = call("client", "config", "new", str(file))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"anchorline: error: cannot write {file}: file too large\n"
    assert call("client", "config", "new", str(file)).code == 0, "nothing is in the way"


def test_whatever_has_the_name_stays(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nothing")
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (link, folder):
        with pytest.raises(AgentError, match="exists"):
            refuse_existing(path)
        with pytest.raises(AgentError, match="exists"):
            write_new(path, b"x", mode=0o600)
    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_there_is_not_is_told(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="none/new: no such file or directory"):
        write_new(tmp_path / "none" / "new", b"x", mode=0o600)

"""A disk of a daemon's own that can be full or read-only: a small tmpfs."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["Disk", "disk_at"]

SIZE: Final = 8 * 1024 * 1024


class Disk:
    """A tmpfs at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = f"size={SIZE},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        with suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))

    def drain(self) -> None:
        """Make room again."""
        (self.folder / "ballast").unlink()

    def remount(self, mode: str) -> None:
        """Read-only ("ro") or not ("rw")."""
        subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], check=True)

    def close(self) -> None:
        """Take it away."""
        subprocess.run(["umount", "-l", self.folder], check=True)


@contextmanager
def disk_at(folder: Path) -> Iterator[Disk]:
    """A disk at a folder that is there for as long as the block runs."""
    made = Disk(folder)
    try:
        yield made
    finally:
        made.close()

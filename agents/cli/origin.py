"""Whether `agents`, `protocol` and `pki` are ours.

These import names are not ours alone: the distribution `openai-agents` provides `agents` too.
Installed into one environment, the later of the two overwrites files of the earlier, and what
runs is a mixture of both. A program that holds keys does not run as a mixture, so it looks
before it does anything else, and names the other one.
"""

from collections.abc import Sequence
from importlib import util
from pathlib import Path

from agents.runtime.errors import AgentError, Exit

__all__ = ["OriginError", "check_origin"]

PACKAGES = ("agents", "protocol", "pki")
DISTRIBUTION = "anchorline"


class OriginError(AgentError):
    """A package of ours is not ours."""

    exit_code = Exit.REFUSED


def check_origin(root: Path | None = None, path: Sequence[str] | None = None) -> None:
    """Refuse to go on unless the three packages come from this distribution alone.

    Args:
        root: The folder that holds the packages; where this file is by default.
        path: Where to look for other distributions; `root` by default.

    Raises:
        OriginError: It names the package and who else provides it.
    """
    root = root if root is not None else Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        spec = util.find_spec(package)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found != root / package / "__init__.py":
            raise _refusal(package, f"it is in {found.parent if found else 'no folder'}")
    for folder in path if path is not None else [str(root)]:
        for record in Path(folder).glob("*.dist-info/RECORD"):
            _check_record(record)


def _check_record(record: Path) -> None:
    """Refuse a list of installed files that has ours, unless it is our own.

    It is only searched: what parses it for `importlib` takes 2 MiB for as long as a daemon lives.
    """
    try:
        text = record.read_text(encoding="utf-8")
    except OSError:
        return  # a folder that is not as installers leave it has installed nothing
    claimed = next((package for package in PACKAGES if f"\n{package}/" in f"\n{text}"), None)
    if claimed is None or record.parent.name.startswith(f"{DISTRIBUTION}-"):
        return
    from importlib import metadata

    other = metadata.Distribution.at(record.parent)
    raise _refusal(claimed, f"{other.name} {other.version} has installed it too")


def _refusal(package: str, why: str) -> OriginError:
    return OriginError(
        f"package {package!r} is not {DISTRIBUTION}'s alone: {why}",
        hint=f"install {DISTRIBUTION} into an environment of its own, for example with pipx",
    )

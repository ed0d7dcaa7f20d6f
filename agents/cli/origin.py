"""Whether `agents`, `protocol` and `pki` are ours.

These import names are not ours alone: the distribution `openai-agents` provides `agents` too.
Installed into one environment, the later of the two overwrites files of the earlier, and what
runs is a mixture of both. A program that holds keys does not run as a mixture, so it looks
before it does anything else, and names the other one.
"""

from collections.abc import Sequence
from importlib import metadata, util
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
    for other in metadata.distributions(path=list(path) if path is not None else [str(root)]):
        # RECORD first: it is only searched, while the name needs the metadata parsed.
        record = other.read_text("RECORD") or ""
        claimed = next((p for p in PACKAGES if f"\n{p}/" in f"\n{record}"), None)
        if claimed is not None and other.name != DISTRIBUTION:
            raise _refusal(claimed, f"{other.name} {other.version} has installed it too")


def _refusal(package: str, why: str) -> OriginError:
    return OriginError(
        f"package {package!r} is not {DISTRIBUTION}'s alone: {why}",
        hint=f"install {DISTRIBUTION} into an environment of its own, for example with pipx",
    )

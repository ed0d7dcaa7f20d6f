"""What the steps of the story share, and what a step is.

A step is a question that an operator would ask, and a function that acts, looks, and returns the
answer that it saw. It raises `NotObservedError` where it saw something else. What a later step
needs is kept in the `Scene`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agents.lab.deployment import Deployment, NotObservedError
from agents.lab.layout import Place
from agents.lab.thief import Thief
from pki.bundle import Bundle

__all__ = ["Act", "NotObservedError", "Scene", "Step", "expect"]


@dataclass(slots=True)
class Scene:
    """The deployment, and what steps have noted for later ones."""

    deployment: Deployment
    sleeper: Place
    """The client that is switched off before a new root is made."""
    newcomer: Place
    """A client that joins late, with the original bundle."""
    show: bool = False
    """Whether time walks through what is worth watching."""
    bundles: list[Bundle] = field(default_factory=list)
    """The ledger after each change, as exported: one bundle a root."""
    thief: Thief | None = None
    """Somebody with copies of keys."""
    absent: set[str] = field(default_factory=set)
    """Clients that are switched off on purpose."""

    def root(self, index: int) -> bytes:
        """The certificate of a root, DER."""
        return self.bundles[-1].chains[0].roots[index].der

    def root_id(self, index: int) -> str:
        """The fingerprint of a root."""
        return self.bundles[-1].chains[0].roots[index].key_id.hex()

    def root_name(self, index: int) -> str:
        """The name of a root."""
        return self.bundles[-1].chains[0].roots[index].name


Act = Callable[[Scene], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Step:
    """One question, and how its answer is found."""

    name: str
    question: str
    act: Act
    vital: bool = False
    """Whether nothing that comes later makes sense without it."""


def expect(claim: bool, otherwise: str) -> None:
    """Go on if this is so.

    Raises:
        NotObservedError: it is not.
    """
    if not claim:
        raise NotObservedError(otherwise)

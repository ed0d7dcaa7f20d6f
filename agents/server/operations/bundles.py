"""Init bundles: what a new component is given (D1)."""

from collections.abc import Mapping

from agents.server import bundling
from agents.server.operations.desk import Desk

__all__ = ["BundleOperations"]


class BundleOperations(Desk):
    """What may be asked about bundles."""

    async def bundle(self, actor: str, settings: Mapping[str, str]) -> tuple[bytes, str, int]:
        """The init bundle, its deployment fingerprint, and how often one was handed out (D1)."""
        return await bundling.export(self._server, actor, settings)

"""Settings and init bundles: what the others are told, and what they are given (B8, D1)."""

from collections.abc import Mapping

from agents.runtime import logs
from agents.server import bundling
from agents.server.operations.desk import Desk, Row

__all__ = ["HandoutOperations"]

log = logs.get_logger()


class HandoutOperations(Desk):
    """What may be asked about settings and bundles."""

    async def bundle(self, actor: str, settings: Mapping[str, str]) -> tuple[bytes, str, int]:
        """The init bundle, its deployment fingerprint, and how often one was handed out (D1)."""
        return await bundling.export(self._server, actor, settings)

    async def settings(self) -> list[Row]:
        """Every setting."""
        return self._server.settings.rows()

    async def setting_set(self, actor: str, name: str, value: str) -> Row:
        """Change a setting; says what the rules raise because of it (B8)."""
        async with self._changing:
            server = self._server
            raised = await server.settings.set(name, value, actor=actor, at=server.clock.now())
            log.info("setting.changed", name=name, value=value, actor=actor)
            return {
                "name": name,
                "value": value,
                "raises": [f"{one.setting} to {one.effective}: {one.why}" for one in raised],
            }

"""Settings of the deployment: listed, and changed without a restart (B8)."""

from agents.runtime import logs
from agents.server.operations.desk import Desk, Row

__all__ = ["SettingOperations"]

log = logs.get_logger()


class SettingOperations(Desk):
    """What may be asked about settings."""

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

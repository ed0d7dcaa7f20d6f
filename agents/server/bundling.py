"""The init bundle as an administrator downloads it: made, recorded, counted, handed out (D1)."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from agents.member.bundle_settings import parse_settings
from agents.runtime import logs
from agents.server.errors import OperationError
from agents.server.store import bundles
from pki.bundle import make_bundle
from pki.errors import PKIError

if TYPE_CHECKING:
    from agents.server.app import Server

__all__ = ["export"]

log = logs.get_logger()


async def export(
    server: "Server", actor: str, settings: Mapping[str, str]
) -> tuple[bytes, str, int]:
    """Make a bundle of everything that is trusted now.

    Returns:
        The file, the deployment fingerprint it shows, and how many were handed out so far.

    Raises:
        OperationError: a setting that a bundle does not carry, or not so.
    """
    state = server.trust.state
    try:
        parse_settings(settings)
    except ValueError as exc:
        raise OperationError("bad-input", str(exc)) from exc
    try:
        content = make_bundle(
            server.authority.issuer().key,
            chains=state.chains,
            heads=state.heads,
            settings=settings,
        )
    except PKIError as exc:
        raise OperationError("bad-input", str(exc)) from exc
    fingerprint = bytes.fromhex(state.fingerprint)
    record = partial(
        bundles.export,
        content=content,
        fingerprint=fingerprint,
        actor=actor,
        at=server.clock.now(),
    )
    await server.store.write(record)
    count = await server.store.read(bundles.count)
    log.info("bundle.exported", actor=actor, count=count, deployment_fingerprint=state.fingerprint)
    return content, state.fingerprint, count

"""A server's roots, for tests: new ones, revocations, and whether all that it holds fits."""

from agents.server.app import Server
from agents.server.authority import OWN_KINDS
from pki import heads
from tests.support.files import MemoryFiles

__all__ = ["AUDIT", "check_whole", "copy", "make_root", "revoke_first"]

AUDIT = b"\x07" * 32


async def make_root(server: Server) -> None:
    await server.new_root(AUDIT)


async def revoke_first(server: Server) -> None:
    if server.authority.chain.roots[0].key_id not in server.authority.chain.revoked:
        server.revoke([server.authority.chain.roots[0].key_id], AUDIT)


def copy(files: MemoryFiles) -> MemoryFiles:
    other = MemoryFiles()
    other.content, other.modes = dict(files.content), dict(files.modes)
    return other


def check_whole(server: Server) -> None:
    """Keys agree with the ledger, and everything that is signed is signed by the current root."""
    authority, chain = server.authority, server.authority.chain
    current = chain.current_root.key_id
    assert authority.can_sign
    assert current in server.keyring.root_ids
    last_two = {root.key_id for root in chain.roots[-2:]}
    assert server.keyring.root_ids <= last_two - chain.revoked
    standby = server.standby.load()
    assert list(standby) == list(chain.state.next)
    assert not standby.keys() & server.keyring.root_ids
    for kind in OWN_KINDS:
        assert server.member.certified(kind)
    head = server.trust.latest_head()
    assert head is not None
    assert heads.parse_head(head).key_id == current

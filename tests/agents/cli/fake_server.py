"""A server as its API sees it: small, honest, and in memory. It keeps what it was asked."""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.server.api.serve import listening
from agents.server.errors import OperationError

__all__ = ["FINGERPRINT", "SECRET", "FakeOperations", "serving"]

FINGERPRINT = "5d" * 32
SECRET = "correct horse battery staple"
NEWEST = "srv.example Root 1"
OLD = "srv.example Root 0"

Row = dict[str, Any]


class FakeOperations:
    """Two roots, of which the newer is a day old; one hub that asked; two clients, one behind."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.revoked: list[str] = []
        self.values = {"pki_client_tls_key_duration_days": "7"}
        self.approval_state = "pending"
        self.broken = False
        """Every call fails, with a secret in the exception."""
        self.young = False
        """A further root asks first."""
        self.settled = True
        """The newer root is old enough for a revocation."""

    def note(self, *call: object) -> None:
        if self.broken:
            raise RuntimeError(f"password is {SECRET}")
        self.calls.append(call)

    async def status(self) -> Row:
        self.note("status")
        roots = await self.roots()
        return {
            "role": "server",
            "id": "ab" * 16,
            "deployment": "cd" * 16,
            "fingerprint": "ef" * 32,
            "time": "2026-03-01T12:00:00+00:00",
            "server": {"fqdn": "srv.example", "listen": "0.0.0.0:14172"},
            "roots": roots,
            "root_age": {"days": 400, "warning": "older than 365 days"},
            "keys": [
                {
                    "kind": "server-tls",
                    "fingerprint": "12" * 32,
                    "root": "02" * 32,
                    "serial": "1f",
                    "not_before": "2026-02-01T00:00:00+00:00",
                    "not_after": "2026-04-02T00:00:00+00:00",
                    "window": 14400,
                    "next_renewal": "2026-04-01T20:30:00+00:00",
                }
            ],
            "ledger": {"slot": "99" * 32, "n": 1, "entry_id": "98" * 32, "head_time": 1772366400},
            "links": [
                {
                    "link": "5f2c0a91",
                    "class": "member",
                    "peer_role": "hub",
                    "peer": "77" * 16,
                    "remote": "10.0.0.2:40112",
                }
            ],
            "components": [
                {
                    "role": "hub",
                    "id": FINGERPRINT[:32],
                    "host": "hub.example",
                    "fingerprint": FINGERPRINT,
                    "state": self.approval_state,
                    "connected": True,
                    "last_seen": "2026-03-01T11:59:00+00:00",
                }
            ],
            "clients": {"total": 2, "present": 1, "behind": 1},
            "behind": ["client client-07"],
            "signatures": {"root": 4, "client_ca": 2},
            "can_sign": True,
        }

    async def roots(self) -> list[Row]:
        self.note("roots")
        return [self._root(OLD, 1), self._root(NEWEST, 2)]

    def _root(self, name: str, number: int) -> Row:
        revoked = name in self.revoked
        why = "a newer root has taken over"
        if name == NEWEST:
            why = "it is the newest root: create a new one first"
        elif not self.settled:
            why = "the newer root is 24 hours old, and components may take 7 days"
        return {
            "name": name,
            "fingerprint": f"{number:02x}" * 32,
            "created": f"2026-0{number}-01T00:00:00+00:00",
            "current": name == NEWEST,
            "revoked": revoked,
            "revocable_in_doubt": name == OLD and not revoked,
            "revocable": name == OLD and not revoked and self.settled,
            "why": "it is revoked already" if revoked else why,
            "private_key_held": not revoked,
        }

    async def root_new(self, actor: str, *, confirmed: bool) -> Row:
        self.note("root_new", actor, confirmed)
        if self.young and not confirmed:
            raise OperationError("confirm", "the newest root is younger than 182 days")
        return {
            "root": self._root("srv.example Root 2", 3),
            "coverage": self._coverage(),
            "trace": "5f2c0a91",
        }

    async def coverage(self, root_name: str | None) -> Row:
        self.note("coverage", root_name)
        if root_name not in (None, OLD, NEWEST):
            raise OperationError("not-found", f"no root {root_name!r}")
        return self._coverage()

    async def root_revoke(
        self,
        actor: str,
        name: str,
        *,
        key_in_doubt: bool,
        reason: str,
        confirmed: bool,
        shown: Sequence[bytes] | None = None,
    ) -> Row:
        self.note("root_revoke", actor, name, key_in_doubt, reason, confirmed, shown)
        if name not in (OLD, NEWEST):
            raise OperationError("not-found", f"no root {name!r}", "see: anchorline root list")
        if name == NEWEST:
            raise OperationError("refused", f"{name}: it is the newest root")
        if not reason.strip():
            raise OperationError("reason", "a revocation needs a reason")
        self.revoked.append(name)
        return {"revoked": [name], "coverage": self._coverage(), "trace": "5f2c0a91"}

    async def root_log(self) -> list[Row]:
        self.note("root_log")
        return [
            {
                "at": "2026-01-01T00:00:00+00:00",
                "actor": "unix:root",
                "action": "root.new",
                "subject": OLD,
                "reason": "",
                "result": "done",
            }
        ]

    async def rotation(self, *, behind: bool) -> Row:
        self.note("rotation", behind)
        row = self._coverage()
        if behind:
            row["rows"] = row["behind"]
        policy = {"kind": "client-tls", "validity": 604800, "window": 14400, "raised": []}
        return {**row, "settings": [policy]}

    def _coverage(self) -> Row:
        behind = {
            "role": "client",
            "id": "07" * 16,
            "host": "client-07",
            "state": "offline",
            "why": "offline, will follow: acknowledged entry 0, this root is entry 1",
            "last_seen": "2026-02-20T08:00:00+00:00",
        }
        moved = {
            **behind,
            "id": "01" * 16,
            "host": "client-01",
            "state": "moved",
            "why": "acknowledged; every key is under it",
        }
        return {
            "root": NEWEST,
            "counts": {"client": {"offline": 1, "moved": 1}},
            "rows": [behind, moved],
            "behind": [behind],
        }

    async def approvals(self) -> list[Row]:
        self.note("approvals")
        return [self._approval()]

    def _approval(self) -> Row:
        return {
            "fingerprint": FINGERPRINT,
            "role": "hub",
            "host": "hub.example",
            "address": "10.0.0.2",
            "state": self.approval_state,
            "first_seen": "2026-03-01T09:00:00+00:00",
            "last_seen": "2026-03-01T11:59:00+00:00",
            "decided_by": None,
            "decided_at": None,
            "reason": "",
        }

    async def approvals_decide(self, actor: str, fingerprint: str, verb: str, reason: str) -> Row:
        self.note("approvals_decide", actor, fingerprint, verb, reason)
        if not FINGERPRINT.startswith(fingerprint):
            raise OperationError("not-found", f"0 requests have fingerprint {fingerprint}")
        self.approval_state = {"approve": "approved", "deny": "denied", "revoke": "revoked"}[verb]
        return self._approval()

    async def approvals_log(self) -> list[Row]:
        self.note("approvals_log")
        return [
            {
                "at": "2026-03-01T09:00:00+00:00",
                "actor": "",
                "state": "pending",
                "fingerprint": FINGERPRINT,
                "host": "hub.example",
                "address": "10.0.0.2",
                "reason": "",
            }
        ]

    async def clients(self) -> list[Row]:
        self.note("clients")
        return [
            {
                "id": "01" * 16,
                "host": "client-01\x1b[2J",  # a client says what it likes of itself
                "address": "10.0.1.11",
                "seen": "10.0.1.11",
                "port": 14172,
                "version": "0.1.0",
                "last_registration": "2026-03-01T11:59:30+00:00",
                "key_not_after": "2026-03-08T00:00:00+00:00",
                "root": "02" * 32,
                "valid_key": True,
                "responder": "ab" * 16,
                "responder_role": "server",
                "chain": "10.0.1.0/24",
                "index": 0,
                "leader": True,
                "forward": "02" * 16,
                "backward": None,
                "status": "present",
            }
        ]

    async def bundle(self, actor: str, settings: Mapping[str, str]) -> tuple[bytes, str, int]:
        self.note("bundle", actor, dict(settings))
        return b"\x00bundle\xff", "ef" * 32, 3

    async def settings(self) -> list[Row]:
        self.note("settings")
        return [
            {
                "name": name,
                "value": int(value),
                "default": 7,
                "type": "Server",
                "value_type": "Numeric",
                "changed_by": None,
                "changed_at": None,
                "effective": int(value),
                "note": "",
            }
            for name, value in self.values.items()
        ]

    async def setting_set(self, actor: str, name: str, value: str) -> Row:
        self.note("setting_set", actor, name, value)
        if name not in self.values:
            raise OperationError("not-found", f"no setting {name!r}")
        if not value.isdecimal():
            raise OperationError("bad-input", f"{name} is a number of days, got {value!r}")
        self.values[name] = value
        return {"name": name, "value": value, "raises": [f"{name} to 2 days 1 hour: a reason"]}


@contextlib.contextmanager
def serving(operations: FakeOperations) -> Iterator[Path]:
    """Serve the real API over `operations` in a thread; yield the socket's path."""
    loop = asyncio.new_event_loop()
    # Not below pytest's folders: another user has to be able to come near, and be refused.
    with tempfile.TemporaryDirectory(prefix="anchorline-api-") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "run" / "server.sock"
        ready = threading.Event()
        stop = asyncio.Event()
        failed: list[BaseException] = []

        async def live() -> None:
            async with listening(operations, path):
                ready.set()
                await stop.wait()

        def run() -> None:
            try:
                loop.run_until_complete(live())
            except BaseException as exc:
                failed.append(exc)
            finally:
                ready.set()
                loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        ready.wait()
        try:
            if failed:
                raise failed[0]
            yield path
        finally:
            if not failed:
                loop.call_soon_threadsafe(stop.set)
            thread.join()

"""Certificates that are out of date by one side's clock: both clocks are named, on both sides."""

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.runtime.dialer import DialError
from agents.runtime.opening import Opening
from pki.certificates import Kind
from protocol.codes import CloseCode
from tests.daemons.siege import Siege, knock
from tests.support.light import LightClient, shifted
from tests.support.links import on_uvloop
from tests.support.logs import logged
from tests.support.thief import leaf_id, mint

pytestmark = pytest.mark.sockets


@on_uvloop
class TestClocks:
    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)

    @pytest.mark.req("E7")
    @pytest.mark.parametrize(
        ("days", "code", "words"),
        [(900, CloseCode.EXPIRED, "expired"), (-400, CloseCode.CLOCK, "begins at")],
    )
    async def test_a_client_with_a_wrong_clock_is_told(
        self,
        siege: Siege,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        days: int,
        code: CloseCode,
        words: str,
    ) -> None:
        made: list[Opening] = []

        def remembered(*given: Any, **options: Any) -> Opening:  # noqa: ANN401 - handed on
            made.append(Opening(*given, **options))
            return made[-1]

        monkeypatch.setattr("agents.runtime.dialer.Opening", remembered)
        client = LightClient(siege.site, folder, clock=shifted(timedelta(days=days)))
        with logged() as lines, pytest.raises(DialError) as caught:
            await client.enrol()
        assert caught.value.code is code
        (line,) = [line for line in lines if line["event"] == "link.refused"]
        assert line["reason"] == code.name.lower()
        assert "clock" in str(line["remedy"])
        # Both readings: ours, and the date in the certificate.
        ours = client.clock.now().date().isoformat()
        assert words in str(line["got"])
        assert ours in str(line["got"])
        assert str(line["got"]).count("T") >= 2
        for opening in made:  # it says why, and then it is gone
            await opening.wire.gone
        theirs = siege.server.wait("link.refused", reason=code.name.lower(), by_peer=True)
        assert f"the peer's clock says {ours}" in theirs["got"]

    @pytest.mark.req("E7")
    async def test_the_server_names_it_too(self, siege: Siege, folder: Path) -> None:
        """A key that is not valid yet at the server: its line has both dates, the peer its time."""
        part = siege.part(Kind.CLIENT_TLS, siege.server)
        later = shifted(timedelta(days=3)).now()
        shown = mint(part.issuer, part.kind, bytes(16), deployment=siege.loot.deployment, at=later)
        host, port = siege.site.address(1), siege.site.port
        talk = knock(host, port, role="client", victim="server", shown=shown, roots=siege.roots)
        assert talk.closed is not None
        assert talk.closed.code is CloseCode.CLOCK
        now = shifted(timedelta()).now()
        assert talk.closed.time is not None
        assert abs(talk.closed.time - now.timestamp()) < 120
        line = siege.server.wait("link.refused", fingerprint=leaf_id(shown))
        assert line["reason"] == "clock"
        assert (later - timedelta(hours=1)).isoformat()[:16] in line["got"]
        assert now.date().isoformat() in line["got"]

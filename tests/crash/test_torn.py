"""Files that a disk has torn, under real clients, hubs and zone servers.

Either the file is named and the start refused, with what to do and with nothing written over;
or it is passed over, or made again, and nothing is lost.
"""

from pathlib import Path

import pytest

from agents.runtime.errors import Exit
from agents.runtime.files import _open_generation
from pki import rotation
from tests.crash.test_processes import until
from tests.crash.whole import issued_by, ledger_of, whole
from tests.support.daemons import Daemon, Site
from tests.support.thief import keyring_of

pytestmark = [pytest.mark.sockets, pytest.mark.req("C8")]

NEEDED = {
    "inside": ("keys.db", "keys.key", "registration.json"),
    "hub": ("keys.db", "keys.key", "settings.json"),
    "zone": ("keys.db", "keys.key", "settings.json", "records.log"),
}
"""Files without which a component does not start, while they are damaged."""
SURVIVED = {"ledger.0": "half", "ledger.1": "zeros", "lock": "empty", "status.json": "half"}
"""Files that are passed over, or made again, and how they are torn here."""


def tears(data: bytes) -> dict[str, bytes]:
    """What a disk can make of a file."""
    half = len(data) // 2
    return {"empty": b"", "half": data[:half], "zeros": bytes(len(data))}


def content(folder: Path, but: str) -> dict[str, bytes]:
    """Everything that is state: not the lock's owner, no report, and no log that is made anew."""
    left_out = {"lock", "status.json", "records.log"} - {but}
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name not in left_out
    }


def generations(daemon: Daemon) -> int:
    """How many whole files of its ledger a component has."""
    slots = [path.read_bytes() for path in daemon.state.glob("ledger.?")]
    return sum(_open_generation(data) is not None for data in slots)


def check_refused(daemon: Daemon, name: str) -> None:
    """It does not start, and says which file, and what to do."""
    before = content(daemon.state, name)
    daemon.launch()
    assert daemon.process is not None
    assert daemon.process.wait() == Exit.REFUSED, name
    rows = daemon.output.all().splitlines()
    assert any(row.startswith("anchorline: error: ") and name in row for row in rows), rows
    assert any(row.startswith("anchorline: hint: ") for row in rows), rows
    assert "Traceback" not in "\n".join(rows)
    assert content(daemon.state, name) == before


@pytest.mark.parametrize("name", list(NEEDED))
def test_each_torn_file_is_named_or_survived(frail_site: Site, name: str) -> None:
    everybody = whole(frail_site)
    daemon: Daemon = getattr(everybody, name)
    frail_site.api.put("settings", next(iter(rotation.SETTINGS)), value="77")

    def follow() -> None:
        """Let both files of its ledger be written."""
        frail_site.api.post("roots", confirmed=True)
        last = ledger_of(everybody.server).last
        until(lambda: generations(daemon) == 2 and ledger_of(daemon).last == last)

    follow()
    if name != "inside":
        until((daemon.state / "settings.json").exists)
    daemon.kill()
    id, serials = keyring_of(daemon).id, issued_by(everybody.zone)
    for file in NEEDED[name]:
        path = daemon.state / file
        sound = path.read_bytes()
        for way, torn in tears(sound).items():
            if (file, way) == ("records.log", "half"):
                continue  # its end was cut off: nobody was told of that
            path.write_bytes(torn)
            check_refused(daemon, file)
        path.write_bytes(sound)
    for file, way in SURVIVED.items():
        path = daemon.state / file
        path.write_bytes(tears(path.read_bytes())[way])
        daemon.start()
        if file.startswith("ledger"):
            assert daemon.lines("ledger.torn")[0]["source"] == str(path)
        daemon.wait("link.opened", link_class="member")
        follow()
        assert keyring_of(daemon).id == id
        assert serials <= issued_by(everybody.zone)
        daemon.kill()
    both = [daemon.state / "ledger.0", daemon.state / "ledger.1"]
    for path in both:
        path.write_bytes(path.read_bytes()[:-1])
    check_refused(daemon, "ledger.0")

"""Every decoder of bytes or text that somebody else may have written, and what it may raise.

A decoder gives an object or one of its documented errors. Anything else is a bug: it would end
a daemon, or be answered as if it were our own fault.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from starlette.requests import Request

from agents.client.config import Config as ClientConfig
from agents.client.memory import Memory
from agents.hub.config import Config as HubConfig
from agents.member.keyring import Keyring
from agents.member.shared_settings import SharedSettings
from agents.member.trust import Trust
from agents.runtime import logs
from agents.runtime.address import HostPort
from agents.runtime.config import load
from agents.runtime.errors import ConfigError, StateError
from agents.runtime.files import TwoGenerations
from agents.runtime.journal import Journal
from agents.server.api import input as api
from agents.server.config import Config as ServerConfig
from agents.server.errors import OperationError
from agents.server.settings import DAYS, _checked
from agents.server.standby import Standby
from agents.zone_server.config import Config as ZoneServerConfig
from agents.zone_server.records import _decode
from pki import certificates, encoding, entries, heads, keys, keystore, rotation, state
from pki.bundle import open_bundle
from pki.errors import PKIError, RefusedError, SealError, UntrustedError
from pki.ledger import Chain, read_chain
from pki.names import Name
from pki.statements import Domain, open_statement
from protocol.codec import decode
from protocol.errors import RemoteProtocolError, TLSError
from protocol.frames import FrameDecoder, FrameType
from protocol.limits import FRAME_LIMITS
from protocol.records import RecordScanner
from tests.support.clock import FakeClock
from tests.support.files import MemoryFiles

__all__ = ["CORPUS", "DECODERS", "KEY_FILE", "PATH", "Decoder", "counted", "seeds"]

CORPUS: Final = Path(__file__).parent / "corpus"
PATH: Final = Path("/state/file")
KEY_FILE: Final = bytes(range(32))
CONFIGS: Final = (ServerConfig, HubConfig, ZoneServerConfig, ClientConfig)


@dataclass(frozen=True)
class Decoder:
    """One door for bytes."""

    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]


def counted(items: int) -> Callable[[int], bytes]:
    """A random source that is none, so that what is made is always the same."""
    return lambda size: bytes((items + place) % 256 for place in range(size))


def seeds(name: str) -> list[bytes]:
    """The files of the corpus for one decoder."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def lenient(data: bytes) -> str:
    """Text as it can come from JSON or TOML: any characters, and no halves of one."""
    return data.decode("utf-8", "replace")


def frames(data: bytes) -> object:
    decoder, found = (
        FrameDecoder({kind.value: most for kind, most in FRAME_LIMITS.items()}, "a test"),
        list[object](),
    )
    decoder.feed(data)
    while (frame := decoder.next_frame()) is not None:
        found.append(decode(frame.type, frame.body))
    return found


def message(data: bytes) -> object:
    return decode(FrameType(data[0] if data[:1] and data[0] in set(FrameType) else 3), data[1:])


def records(data: bytes) -> object:
    scanner = RecordScanner()
    try:
        scanner.feed(data)
    finally:
        shown = scanner.shown_chain()
    return shown


def entry(data: bytes) -> object:
    found = entries.decode_entry(data)
    return found.time, found.parse(), read_chain([data])


def stored(data: bytes, path: Path = PATH) -> MemoryFiles:
    files = MemoryFiles()
    files.content[path] = data
    return files


def keyring(data: bytes) -> object:
    files = stored(data)
    files.content[PATH.with_suffix(".key")] = KEY_FILE
    ring = Keyring(PATH, files)
    return [(one.leaf, one.root, one.issuer_id) for one in ring.credentials], ring.id


def sealed_keyring(data: bytes) -> object:
    """What the seal protects, as somebody who has the key file could have written it."""
    return keyring(keystore.seal(data, keystore.KeyFile(KEY_FILE), random=counted(1)))


def standby(data: bytes) -> object:
    files = stored(data)
    files.content[Path("/key")] = KEY_FILE
    return Standby(PATH, Path("/key"), files).load()


def sealed_standby(data: bytes) -> object:
    return standby(keystore.seal(data, keystore.KeyFile(KEY_FILE), random=counted(1)))


def journal(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(data)
        opened, found = Journal.open(path)
        opened._thread.shutdown()
        opened._tape.close()
        return found


def generations(data: bytes) -> object:
    files = stored(data, PATH.with_name("file.0"))
    files.content[PATH.with_name("file.1")] = data[::-1]
    return TwoGenerations(PATH, files).read()


def trust(data: bytes) -> object:
    files = MemoryFiles()
    TwoGenerations(PATH, files).write(data)
    return Trust.load(PATH, files=files, clock=FakeClock(), log=logs.get_logger())


def config(data: bytes) -> object:
    problems = 0
    for kind in CONFIGS:
        try:
            load(lenient(data), kind)
        except ConfigError as exc:
            problems += len(exc.problems)
    return problems


def body(data: bytes) -> object:
    found: list[object] = []
    for kind in (
        api.RootBody,
        api.RevokeBody,
        api.DecideBody,
        api.BundleBody,
        api.SettingBody,
    ):
        request = SimpleNamespace(
            state=SimpleNamespace(body=data), headers={"content-type": "application/json"}
        )
        try:
            read = api.read_body(cast(Request, request), cast(Any, kind))
            found.append(api.settings(read) if isinstance(read, api.BundleBody) else read)
        except OperationError as exc:
            json.dumps(exc.text).encode()
    return found


def path_of_request(data: bytes) -> object:
    url = SimpleNamespace(query=lenient(data))
    words = {"name": lenient(data), "fingerprint": lenient(data)}
    request = cast(Request, SimpleNamespace(path_params=words, url=url))
    found: list[object] = []
    for read in (api.root_name, api.setting_name, api.fingerprint, api.no_query):
        try:
            found.append(cast(Callable[[Request], object], read)(request))
        except OperationError as exc:
            exc.text.encode()
    try:
        found.append(api.flag(request, "behind"))
    except OperationError as exc:
        exc.text.encode()
    return found


def setting(data: bytes) -> object:
    value, found = lenient(data), []
    for name in (*rotation.SETTINGS, *DAYS, "no-such-setting"):
        try:
            number = _checked(name, value)
        except OperationError as exc:
            exc.text.encode()
        else:
            if not 1 <= number <= 40_000:
                raise AssertionError(f"{name} = {number}")
            found.append(number)
    return found


def shared(data: bytes) -> object:
    return SharedSettings(PATH, stored(data), logs.get_logger(), lambda: None).message


def remembered(data: bytes) -> object:
    last = Memory(PATH, stored(data)).last
    return bytes.fromhex(last.responder), bytes.fromhex(last.token)


def host_port(data: bytes) -> object:
    found = HostPort.parse(lenient(data))
    if not 0 <= found.port <= 65_535:
        raise AssertionError(found)
    return found


DECODERS: Final[Mapping[str, Decoder]] = {
    "frames": Decoder(frames, (RemoteProtocolError,)),
    "message": Decoder(message, (RemoteProtocolError,)),
    "records": Decoder(records, (TLSError,)),
    "encoding": Decoder(lambda data: encoding.unpack(data, max_bytes=1 << 17), (PKIError,)),
    "statement": Decoder(
        lambda data: open_statement(data, Domain(b"a", b"b"), max_body=9000, what="it"),
        (PKIError,),
    ),
    "entry": Decoder(entry, (PKIError,)),
    "head": Decoder(heads.parse_head, (PKIError,)),
    "chain": Decoder(Chain.decode, (PKIError,)),
    "bundle": Decoder(open_bundle, (PKIError,)),
    "state": Decoder(state.decode_state, (PKIError,)),
    "trust": Decoder(trust, (StateError,)),
    "keystore": Decoder(
        lambda data: keystore.open_sealed(data, keystore.KeyFile(KEY_FILE)), (SealError,)
    ),
    "keyring": Decoder(keyring, (StateError,)),
    "sealed-keyring": Decoder(sealed_keyring, (StateError,)),
    "sealed-standby": Decoder(sealed_standby, (StateError,)),
    "journal": Decoder(journal, (StateError,)),
    "zone-record": Decoder(lambda data: _decode(PATH, data), (StateError,)),
    "generations": Decoder(generations, (StateError,)),
    "certificate": Decoder(certificates.read, (PKIError,)),
    "request": Decoder(certificates.parse_request, (PKIError, RefusedError, UntrustedError)),
    "spki": Decoder(keys.load_spki, (PKIError,)),
    "name": Decoder(lambda data: Name.parse(lenient(data)), (PKIError,)),
    "config": Decoder(config, ()),
    "api-body": Decoder(body, ()),
    "api-path": Decoder(path_of_request, ()),
    "setting": Decoder(setting, ()),
    "shared-settings": Decoder(shared, (StateError,)),
    "memory": Decoder(remembered, (StateError,)),
    "address": Decoder(host_port, (ValueError,)),
}
"""By the name of their folder in the corpus."""

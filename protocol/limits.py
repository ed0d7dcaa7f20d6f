"""How large a peer may make anything: one place, checked before memory is spent.

Sizes are bytes. A frame's limit is that of its msgpack body; `docs/spec/frame.md` has the
same table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from protocol.frames import FrameType

__all__ = [
    "FRAME_LIMITS",
    "MAX_CHAIN",
    "MAX_ENTRIES",
    "MAX_ENTRY",
    "MAX_HEAD",
    "MAX_ROWS",
    "MAX_SETTINGS",
    "MAX_TEXT",
    "Limits",
]

MAX_TEXT: Final = 512
"""Characters of a reason or another text for people."""
MAX_NAME: Final = 255
"""Characters of a host name, an address, a version, a setting's name."""
MAX_VALUE: Final = 4096
"""Characters of a setting's text."""
MAX_SETTINGS: Final = 256
"""Settings in one message."""
MAX_ENTRY: Final = 16 * 1024
"""A ledger entry (docs/spec/ledger.md, *Chain* 1)."""
MAX_ENTRIES: Final = 1024
"""Ledger entries in one answer, which `FRAME_LIMITS` bounds to 64 KiB."""
MAX_HEAD: Final = 16 * 1024
"""A HEAD: 256 denied KeyIDs of 34 bytes, a public key and a signature are below 9 KiB."""
MAX_CERTIFICATE: Final = 4096
"""One certificate or certificate request, DER."""
MAX_CHAIN: Final = 4
"""Certificates of a chain: leaf, client CA, root, and one to spare."""
MAX_CREDENTIALS: Final = 8
"""Certificates that one acknowledgement lists."""
MAX_ROWS: Final = 1000
"""Clients, or acknowledgements, in one report."""

_KIB: Final = 1024

FRAME_LIMITS: Final[Mapping[FrameType, int]] = MappingProxyType(
    {
        FrameType.HELLO: 128,
        FrameType.CLOSE: 4 * _KIB,
        FrameType.PING: 128,
        FrameType.PONG: 128,
        FrameType.DONE: 128,
        FrameType.REFUSED: 4 * _KIB,
        FrameType.LEDGER_GET: 256,
        # 64 KiB of entries and a HEAD (docs/spec/ledger.md, *Catching up* 1), and their names.
        FrameType.LEDGER_ENTRIES: 96 * _KIB,
        FrameType.HEAD_NOTICE: 20 * _KIB,
        FrameType.ACK: 4 * _KIB,
        FrameType.NONCE_GET: 256,
        FrameType.NONCE: 256,
        FrameType.ENROL: 16 * _KIB,
        FrameType.ISSUED: 20 * _KIB,
        FrameType.PENDING: 256,
        FrameType.REGISTER: 8 * _KIB,
        FrameType.REGISTERED: 512 * _KIB,
        FrameType.PEER_HELLO: 1 * _KIB,
        FrameType.SETTINGS: 512 * _KIB,
        FrameType.REPORT: 1024 * _KIB,
        # An envelope around the largest of the above.
        FrameType.RELAY: 1025 * _KIB,
        FrameType.RELAYED: 128 * _KIB,
    }
)
"""Largest body of each frame type."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one link may cost."""

    frames: Mapping[FrameType, int] = field(default_factory=lambda: FRAME_LIMITS)
    """Largest body of each type."""
    handshake: int = 32 * _KIB
    """Bytes a peer may send before its TLS handshake is done: ours takes about 3 KiB."""
    send_high_water: int = 256 * _KIB
    """Bytes waiting to be written above which the owner stops reading requests."""

"""One example of each message, with every field set, and what is none."""

from protocol.codec import encode
from protocol.codes import CloseCode
from protocol.frames import FrameType, encode_frame
from protocol.limits import FRAME_LIMITS
from protocol.messages import (
    Ack,
    ClientRow,
    Close,
    Credential,
    Done,
    Enrol,
    HeadNotice,
    Hello,
    Issued,
    LedgerEntries,
    LedgerGet,
    Message,
    Neighbour,
    Nonce,
    NonceGet,
    PeerHello,
    Pending,
    Ping,
    Pong,
    Refused,
    Register,
    Registered,
    Relay,
    Relayed,
    Report,
    Settings,
)

TRACE = "5ca1ab1e" * 4
SLOT, ENTRY, KEY, ROOT, NONCE = (bytes([n]) * 32 for n in b"sekrn")
ONE, TWO = b"1" * 16, b"2" * 16
SPKI, SIGNATURE, DER = b"p" * 91, b"g" * 71, b"c" * 400

ACK = Ack(
    trace=TRACE,
    call=7,
    slot=SLOT,
    n=3,
    entry_id=ENTRY,
    spki=SPKI,
    signature=SIGNATURE,
    credentials=[
        Credential(kind="client-tls", key_id=KEY, root=ROOT, not_after=1_924_992_000),
    ],
)

EXAMPLES: tuple[Message, ...] = (
    Hello(trace=TRACE, call=0, link="enrolment"),
    Close(trace=TRACE, code=33, text="expired", time=1_924_992_000, retry_after=1.5),
    Ping(trace=TRACE, call=1, id=2**63 - 1, sender=ONE),
    Pong(trace=TRACE, call=1, id=0),
    Done(trace=TRACE, call=2**32 - 1),
    Refused(trace=TRACE, call=1, reason="unknown-secret", text="Fragt später.", retry_after=0.5),
    LedgerGet(trace=TRACE, call=1, slot=SLOT, n=3, entry_id=ENTRY),
    LedgerEntries(
        trace=TRACE, call=1, slot=SLOT, first=4, entries=[b"e" * 900], more=True, head=b"h" * 300
    ),
    HeadNotice(trace=TRACE, call=1, head=b"h" * 300, spread=12.5),
    ACK,
    NonceGet(trace=TRACE, call=1, kind="client-tls", spki=SPKI),
    Nonce(trace=TRACE, call=1, nonce=NONCE),
    Enrol(
        trace=TRACE,
        call=1,
        kind="client-tls",
        csr=DER,
        spki=SPKI,
        nonce=NONCE,
        signature=SIGNATURE,
        secret="open sesame",
        host="host.test",
    ),
    Issued(trace=TRACE, call=1, chain=[DER, DER, DER], window=14_400),
    Pending(trace=TRACE, call=1, fingerprint=KEY.hex(), retry_after=5.0),
    Register(
        trace=TRACE,
        call=1,
        host="host.test",
        version="0.1.0",
        port=14172,
        address="127.0.1.7",
        token=b"open sesame",
        full=True,
        root=ROOT,
        key_not_after=1_924_992_000,
        lost=[ONE],
    ),
    Registered(
        trace=TRACE,
        call=1,
        token=b"open sesame",
        observed="127.0.1.7",
        forward=Neighbour(id=ONE, address="127.0.1.6", port=14172),
        backward=Neighbour(id=TWO, address="127.0.1.8", port=14172),
        revision=4,
        leader=True,
        settings={"log_level": "info"},
        head=b"h" * 300,
        next=45.0,
        spread=60.0,
    ),
    PeerHello(trace=TRACE, call=1, revision=4, address="127.0.1.7", port=14172),
    Settings(trace=TRACE, call=1, revision=9, values={"log_level": "info"}),
    Report(
        trace=TRACE,
        call=1,
        clients=[
            ClientRow(
                id=ONE,
                host="host.test",
                version="0.1.0",
                address="127.0.9.7",
                observed="127.0.9.7",
                port=14172,
                last_registered=1_924_000_000,
                key_not_after=1_924_992_000,
                root=ROOT,
                forward=TWO,
                backward=TWO,
                leader=True,
                status="online",
            )
        ],
        full=True,
        acks=[ACK],
        issued=60,
    ),
    Relay(trace=TRACE, call=1, zone=ONE, proven=True, inner_type=0x10, inner=b"\x80"),
    Relayed(trace=TRACE, call=1, inner_type=0x11, inner=b"\x80"),
)
"""In the order of `protocol.messages.MESSAGES`."""

GARBAGE: dict[str, tuple[bytes, CloseCode]] = {
    "oversize": (
        (FRAME_LIMITS[FrameType.PING] + 1).to_bytes(4) + b"\x03",
        CloseCode.FRAME_TOO_LARGE,
    ),
    "unknown frame": (encode_frame(FrameType.PING, b"")[:4] + b"\x7f", CloseCode.UNKNOWN_FRAME),
    "another class": (encode(next(iter(EXAMPLES))), CloseCode.NOT_ALLOWED),
    "no msgpack": (encode_frame(FrameType.PING, b"\xc1"), CloseCode.PROTOCOL_ERROR),
    "no message": (encode_frame(FrameType.PING, b"\x80"), CloseCode.PROTOCOL_ERROR),
}
"""What is no frame of the peer's, and the code of the end that it brings."""

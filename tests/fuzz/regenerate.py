"""Write the seeds of the corpus anew: `python -m tests.fuzz.regenerate`.

Keys are derived from their number and sign without randomness, so the files come out the same.
What a fuzzer has found is added by hand, under a name that begins with `found-`.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import msgspec

from agents.member.keyring import Credential, _Content, _serialize
from agents.responder.records import IssuedRecord
from agents.runtime.files import _seal_generation
from agents.runtime.journal import _MAGIC, _batch
from agents.zone_server.records import _encode
from pki import certificates, encoding, issuance, keys, keystore, trust
from pki.bundle import make_bundle
from pki.certificates import Kind
from pki.issuance import Issuer
from protocol.codec import encode
from protocol.frames import FrameType
from tests.fuzz.decoders import CORPUS, KEY_FILE, counted
from tests.pki import lineage
from tests.pki.lineage import NOW, honest, key, kid
from tests.protocol.examples import EXAMPLES

__all__ = ["files"]

DEPTHS = (16, 1000)


def certificate(kind: Kind, issuer: Issuer, number: int) -> bytes:
    return issuance.issue(
        issuer,
        certificates.parse_request(certificates.make_request(key(number), kind)),
        kind=kind,
        name=certificates.name_of(lineage.DEPLOYMENT, kind, bytes(range(16))),
        validity=timedelta(days=7),
        now=NOW,
        serial=1 << 120 | number,
    )


def chain_of_a_client() -> tuple[bytes, ...]:
    root = Issuer(key(0), (lineage.root(0, 0),))
    ca = certificate(Kind.CLIENT_CA, root, 40)
    leaf = certificate(Kind.CLIENT_TLS, Issuer(key(40), (ca, *root.chain)), 41)
    return leaf, ca, lineage.root(0, 0)


def keyring() -> bytes:
    leaf = chain_of_a_client()
    held = Credential(Kind.CLIENT_TLS, key(41), leaf, timedelta(hours=4))
    content = _Content(key(42), {held.kind: held}, {Kind.CLIENT_TLS: key(43)}, {kid(0): key(0)})
    return _serialize(content)


def tls_records() -> bytes:
    """A handshake that shows a chain, and what follows it."""
    chain = b"".join(len(der).to_bytes(3) + der for der in chain_of_a_client())
    body = len(chain).to_bytes(3) + chain
    message = b"\x0b" + len(body).to_bytes(3) + body
    record = b"\x16\x03\x03" + len(message).to_bytes(2) + message
    return record + b"\x14\x03\x03\x00\x01\x01" + b"\x17\x03\x03\x00\x40" + bytes(64)


def files() -> Mapping[str, bytes]:
    """Every seed by its path in the corpus."""
    three, gone = honest(3), honest(3, revoked=[0])
    head = lineage.head(gone, 2, denied=[kid(99)])
    bundle = make_bundle(key(2), [gone], [head], {"log_level": "info"})
    state = trust.encode_state(trust.from_chain(gone, head=head))
    leaf, ca, root = chain_of_a_client()
    ring = keyring()
    seal = keystore.seal(ring, keystore.KeyFile(KEY_FILE), random=counted(0))
    spare = encoding.pack([keys.private_bytes(key(n)) for n in range(3)])
    salt = bytes(range(16))
    log = _MAGIC + salt
    for batch in ([b"one", b"two"], [b"x" * 300], [b""]):
        log += _batch(batch, salt, len(log))
    issue = IssuedRecord(
        serial=1 << 130,
        kind="client-tls",
        holder=bytes(16),
        key_id=bytes(32),
        issuer=bytes(32),
        root=bytes(32),
        not_before=NOW,
        not_after=NOW,
        at=NOW,
    )
    return {
        **{f"message/{m.FRAME.name.lower()}": bytes([m.FRAME]) + encode(m)[5:] for m in EXAMPLES},
        "frames/all": b"".join(map(encode, EXAMPLES)),
        **{
            f"frames/bomb-{depth}": (5 * depth).to_bytes(4)
            + bytes([FrameType.ENROL])
            + b"\xdd\x00\x00\x3f\xff" * depth
            for depth in DEPTHS
        },
        "records/handshake": tls_records(),
        **{f"encoding/bomb-{depth}": b"\xdc\x08\x00" * depth for depth in DEPTHS},
        "encoding/nested": encoding.pack([[[[b"x", "y", 1, None, True]]]]),
        **{f"entry/{n}": entry for n, entry in enumerate(honest(2, revoked=[0]).encoded)},
        "head/denies-one": head,
        "head/plain": lineage.head(three, 2),
        "statement/head": head,
        "chain/three": three.encode(),
        "chain/revoked": gone.encode(),
        "bundle/one-slot": bundle,
        "state/one-slot": state,
        "trust/one-slot": state,
        "keystore/keyring": seal,
        "keyring/client": seal,
        "sealed-keyring/client": ring,
        "sealed-standby/three": spare,
        "journal/three-batches": log,
        "zone-record/issued": _encode("issued", issue),
        "zone-record/signed": _encode("signed", 7),
        "generations/one": _seal_generation(3, b"content"),
        "certificate/leaf": leaf,
        "certificate/ca": ca,
        "certificate/root": root,
        "request/client": certificates.make_request(key(41), Kind.CLIENT_TLS),
        "spki/one": keys.spki(key(0).public_key()),
        "name/client": certificates.name_of(bytes(16), Kind.CLIENT_TLS, bytes(16)).uri.encode(),
        "api-body/all": json.dumps(
            {"reason": "r", "confirmed": True, "settings": {"a": "b"}, "value": "1"}
        ).encode(),
        "api-body/settings": b'{"settings": {"log_level": "info"}}',
        "api-body/nested": b"[" * 5000,
        "api-path/root": b"s.example Root 0",
        "api-path/fingerprint": kid(0).hex().encode(),
        "api-path/query": b"behind=true",
        "setting/days": b"60",
        "setting/zeros": b"0" * 8 + b"9" * 30,
        "shared-settings/one": msgspec.json.encode([4, {"pki_client_tls_key_duration_days": "7"}]),
        "memory/one": msgspec.json.encode(
            {
                "tokens": {"00" * 16: "ff" * 16},
                "settings": {"PKIClientTLSKeyRenewalWindowHours": "4"},
            }
        ),
        "address/name": b"server.example:14172",
        "address/v6": b"[::1]:14172",
        "address/zeros": b"a:" + b"0" * 6 + b"9" * 20,
        "config/client": b'servers = ["a.example:1", "[::1]:2"]\nping = 3.5\nhost = "x"\n',
        "config/server": b'fqdn = "a"\nlisten = "0.0.0.0:1"\n[admission]\nhandshakes = 4\n',
        "config/numbers": b"ping = 1e999\nregistration_min = nan\nregistration_max = -0\n",
        "config/huge": b"ping = " + b"9" * 400,
        "config/digits": b"ping = " + b"9" * 5000,
        "config/nested": b"ping = " + b"[" * 3000,
    }


def main() -> None:
    """Write them all."""
    for name, data in files().items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)


if __name__ == "__main__":
    main()

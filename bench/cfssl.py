"""`cfssl serve`, and its load: what issuance-service compares with.

    python -m bench.cfssl PORT CONNECTIONS REQUESTS     the load, as `enrolling.py`

CFSSL signs by the same kind of key (ECDSA P-256) and takes the same kind of request, over plain
HTTP with a shared key's MAC in place of mutual TLS, and keeps no record. So it does less.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
from pathlib import Path

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from agents.runtime.clock import SystemClock
from pki import certificates, keys

__all__ = ["command", "main", "prepare"]

SHARED_KEY = "0123456789ABCDEF0123456789ABCDEF"
CONFIG = {
    "signing": {
        "default": {
            "auth_key": "bench",
            "usages": ["digital signature", "client auth"],
            "expiry": "168h",
        }
    },
    "auth_keys": {"bench": {"type": "standard", "key": SHARED_KEY}},
}


def prepare(folder: Path) -> None:
    """Make its CA and its configuration, once."""
    if (folder / "cfssl.json").exists():
        return
    key = keys.generate()
    ca = certificates.make_root(key, "cfssl.bench.test", 0, SystemClock().now(), 1)
    pem = x509.load_der_x509_certificate(ca).public_bytes(Encoding.PEM)
    (folder / "cfssl-ca.pem").write_bytes(pem)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "cfssl-ca-key.pem").touch(0o600)
    (folder / "cfssl-ca-key.pem").write_bytes(private)
    (folder / "cfssl.json").write_text(json.dumps(CONFIG))


def command(folder: Path, port: int) -> list[str | Path]:
    """How it is started."""
    return [
        *("cfssl", "serve", "-loglevel", "5", "-address", "127.0.0.1", "-port", str(port)),
        *("-ca", folder / "cfssl-ca.pem", "-ca-key", folder / "cfssl-ca-key.pem"),
        *("-config", folder / "cfssl.json"),
    ]


def _request(number: int) -> bytes:
    """One HTTP request with a CSR of its own."""
    key = keys.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"client {number}")])
    csr = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    pem = csr.public_bytes(Encoding.PEM).decode()
    inner = json.dumps({"certificate_request": pem, "hostname": "client.bench.test"}).encode()
    token = hmac.digest(bytes.fromhex(SHARED_KEY), inner, hashlib.sha256)
    body = json.dumps(
        {"token": base64.b64encode(token).decode(), "request": base64.b64encode(inner).decode()}
    ).encode()
    head = (
        "POST /api/v1/cfssl/authsign HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _send(port: int, number: int, times: int, gate: asyncio.Event) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request, failed = _request(number), 0
    await gate.wait()
    for _ in range(times):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b"BEGIN CERTIFICATE" not in body:
            print(head, body, file=sys.stderr)
            failed += 1
    writer.close()
    return failed


async def _main(port: int, links: int, requests: int) -> None:
    gate = asyncio.Event()
    times = requests // links
    tasks = [asyncio.ensure_future(_send(port, i, times, gate)) for i in range(links)]
    await asyncio.sleep(0.5)
    print("ready")
    await asyncio.to_thread(sys.stdin.readline)
    before = time.perf_counter()
    gate.set()
    failed = sum(await asyncio.gather(*tasks))
    print("done", links, times * links, failed, int((time.perf_counter() - before) * 1e6))


def main() -> int:
    """Run the load."""
    port, links, requests = map(int, sys.argv[1:4])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(port, links, requests))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`anchorline cert`: what a certificate says, in a file or as a port shows it."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agents.cli.tables import date
from agents.cli.terminal import Terminal, json_option, pass_terminal, plain
from agents.runtime.address import HostPort
from agents.runtime.errors import AgentError, UnavailableError, reason_of

__all__ = ["cert", "describe", "read_file", "shown_by"]

MAX_FILE = 1 << 20
MAX_HANDSHAKE = 256 << 10
"""Bytes that a port may send before its certificates have to be there."""
TIMEOUT = 10.0
PEM = b"-----BEGIN "


@click.group()
def cert() -> None:
    """Inspect certificates in a file or at a port."""


@cert.command()
@click.argument("what", metavar="FILE|HOST:PORT")
@json_option
@pass_terminal
def inspect(terminal: Terminal, what: str) -> None:
    """Show the certificates in a file (PEM or DER), or those that a TLS port shows.

    Nothing is verified: a port shows what it likes. Compare the fingerprints.
    """
    path = Path(what)
    chain = read_file(path) if path.exists() or ":" not in what else shown_by(what)
    rows = [describe(der) for der in chain]
    if terminal.json:
        terminal.show_json(rows)
        return
    for place, row in enumerate(rows):
        if place:
            terminal.show()
        for name, value in row.items():
            terminal.show(f"{name.replace('_', ' '):<12}{_shown(name, value)}")
    terminal.say("nothing of this was verified: compare the fingerprint")


def read_file(path: Path) -> list[bytes]:
    """Return the certificates (DER) of a file.

    Raises:
        AgentError: It cannot be read, or holds none.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise AgentError(f"{path} has more than {MAX_FILE} bytes")
        found = (
            x509.load_pem_x509_certificates(data)
            if PEM in data
            else [x509.load_der_x509_certificate(data)]
        )
    except OSError as exc:
        raise AgentError(f"cannot read {path}: {reason_of(exc)}") from exc
    except ValueError as exc:
        raise AgentError(f"{path} holds no certificate", hint="PEM and DER can be read") from exc
    return [one.public_bytes(Encoding.DER) for one in found]


def shown_by(address: str) -> Sequence[bytes]:
    """Return the certificates (DER, leaf first) that a TLS port shows.

    Raises:
        UnavailableError: Nobody is there, or no TLS 1.2 is spoken there.
    """
    from protocol.tls import TLS, discovery_context

    try:
        target = HostPort.parse(address)
    except ValueError as exc:
        raise AgentError(str(exc)) from exc
    tls = TLS(discovery_context(), server_side=False)
    received = 0
    try:
        with socket.create_connection((target.host, target.port), timeout=TIMEOUT) as connection:
            connection.sendall(tls.data_to_send())
            # Until it is done, because only then the key is known to be there, or has failed.
            while not tls.handshake_done and tls.failure is None and received < MAX_HANDSHAKE:
                data = connection.recv(16 * 1024)
                if not data:
                    break
                received += len(data)
                tls.receive(data)
                connection.sendall(tls.data_to_send())
    except OSError as exc:
        raise UnavailableError(f"cannot ask {target}: {reason_of(exc)}") from exc
    chain = tls.shown_chain()
    if not chain:
        why = f": {tls.failure}" if tls.failure is not None else ""
        raise UnavailableError(f"{target} shows no certificate{why}", hint="TLS 1.2 is spoken here")
    return chain


def describe(der: bytes) -> dict[str, Any]:
    """Return what a certificate says; of one that is not ours, what every certificate has.

    Raises:
        AgentError: It cannot be read at all.
    """
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from pki import certificates
    from pki.errors import PKIError

    try:
        found = x509.load_der_x509_certificate(der)
        key = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        row: dict[str, Any] = {
            "fingerprint": hashlib.sha256(key).hexdigest(),
            "subject": found.subject.rfc4514_string(),
            "issuer": found.issuer.rfc4514_string(),
            "serial": format(found.serial_number, "x"),
            "not_before": found.not_valid_before_utc.isoformat(),
            "not_after": found.not_valid_after_utc.isoformat(),
        }
    except certificates.UNREADABLE as exc:
        raise AgentError("a certificate that cannot be read") from exc
    try:
        facts = certificates.read(der)
    except PKIError as exc:
        return {**row, "kind": None, "name": None, "note": f"not of this product: {exc}"}
    kind = None if facts.kind is None else facts.kind.value
    return {**row, "kind": kind, "name": None if facts.name is None else facts.name.uri}


def _shown(name: str, value: object) -> str:
    return date(value) if name in ("not_before", "not_after") else plain(value)

"""Trying to resume a session with another TLS library, as whoever has listened would."""

import ssl
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_connection, socket

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from protocol.tls import Credentials
from tests.support.nursery import PATIENCE

__all__ = ["Resumer", "resumes"]


def context(shown: Credentials, roots: tuple[bytes, ...], *, server_side: bool) -> ssl.SSLContext:
    """TLS 1.2 as everybody has it: with tickets, and with sessions that are kept."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    if not server_side:
        made.check_hostname = False
    made.load_verify_locations(cadata="".join(ssl.DER_cert_to_PEM_cert(root) for root in roots))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shown.pem"
        chain = [x509.load_der_x509_certificate(der) for der in shown.chain]
        path.write_bytes(
            b"".join(one.public_bytes(Encoding.PEM) for one in chain)
            + shown.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        made.load_cert_chain(path)
    return made


@dataclass
class Resumer:
    """One end of connections, each of which may go on with the session of the one before.

    As a TLS server it gives tickets and remembers sessions; as a TLS client it comes back with
    what it was given.
    """

    context: ssl.SSLContext
    server_side: bool
    session: ssl.SSLSession | None = None
    reused: list[bool] = field(default_factory=list)
    """For each connection so far, whether it went on with an earlier session."""
    given: list[bool] = field(default_factory=list)
    """For each connection so far, whether there was something to resume by."""

    @classmethod
    def of(cls, shown: Credentials, roots: tuple[bytes, ...], *, server_side: bool) -> "Resumer":
        """Whoever shows this."""
        return cls(context(shown, roots, server_side=server_side), server_side)

    def meet(self, sock: socket) -> None:
        """Shake hands, and go."""
        sock.settimeout(PATIENCE)
        tls = self.context.wrap_socket(
            sock,
            server_side=self.server_side,
            session=None if self.server_side else self.session,
            suppress_ragged_eofs=True,
        )
        with tls:
            session = tls.session
            self.reused.append(bool(tls.session_reused))
            self.given.append(session is not None and (bool(session.id) or session.has_ticket))
            self.session = session
            with suppress(OSError):
                tls.unwrap()


def resumes(
    host: str, port: int, shown: Credentials, roots: tuple[bytes, ...]
) -> tuple[bool, bool]:
    """Connect twice to a port, the second time with the first one's session.

    Returns:
        Whether the server gave something to resume by, and whether it resumed.
    """
    resumer = Resumer.of(shown, roots, server_side=False)
    for _ in range(2):
        with create_connection((host, port)) as sock:
            resumer.meet(sock)
    return any(resumer.given), any(resumer.reused)

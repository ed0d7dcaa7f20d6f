"""TLS 1.2 without I/O: OpenSSL over two memory BIOs.

What every context keeps to, each for a reason that a test in
`tests/protocol/test_tls_facts.py` repeats:

1. No Python callback: one needs memory that is writable and executable, which the
   services' sandbox forbids. Who the peer is, is checked after the handshake.
2. No session ticket and no session cache: a resumed session verifies nobody and outlives
   a revocation.
3. A context is frozen by its first connection. A change of trust makes a new context.
4. OpenSSL checks no dates (`X509_V_FLAG_NO_CHECK_TIME`): a store takes a time only once,
   and we want expiry and skew to have names. A wrong root is still refused.
5. TLS 1.2 with ECDHE-ECDSA and AES-GCM, extended master secret (RFC 7627), no
   renegotiation, no compression.

6. An issuer that we have verified once is an anchor (`X509_V_FLAG_PARTIAL_CHAIN`): its own
   signature costs a seventh of a handshake. It is one only where it is given with its whole
   chain, and that chain ends at a root of the same context; what OpenSSL verified up to the
   issuer is returned completed, so that whoever judges a chain sees its root as ever.

A client certificate is requested and not required: who shows none must say HELLO.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from OpenSSL import SSL, crypto
from OpenSSL._util import lib as openssl

from protocol.calls import CALLS, Chain, Connection
from protocol.errors import (
    AlertError,
    DistrustedError,
    LocalProtocolError,
    TLSError,
    UntrustedChainError,
)
from protocol.records import MAX_PLAINTEXT, RecordScanner

__all__ = [
    "CIPHERS",
    "NO_CHECK_TIME",
    "TLS",
    "Credentials",
    "client_context",
    "discovery_context",
    "server_context",
]

CIPHERS: Final = b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
"""All with the record overhead that `protocol.records` counts on."""
NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which pyOpenSSL does not name."""

_OP_NO_RENEGOTIATION: Final = 0x40000000
_MODE_NO_AUTO_CHAIN: Final = 0x8  # send the chain as given, build none from the roots
_MODE_ENABLE_PARTIAL_WRITE: Final = 0x1
_LARGE: Final = 4096
"""Bytes at once: the room for more of them is given back when the next that come are fewer."""

# RFC 5246, section 7.2: alerts that are about a certificate, as OpenSSL names them.
_ABOUT_CERTIFICATES: Final = (
    "bad certificate",
    "unsupported certificate",
    "certificate revoked",
    "certificate expired",
    "certificate unknown",
    "unknown ca",
    "access denied",
    "decrypt error",  # a root of the right name with another key
)

# The one question that pyOpenSSL has no public call for. Without it an enrolment could
# be bound to a connection that an attacker in the middle can copy (RFC 7627), so its
# absence refuses to start.
_extended_master_secret: Final[Callable[[object], int] | None] = getattr(
    openssl, "SSL_get_extms_support", None
)
if _extended_master_secret is None:
    raise ImportError("this OpenSSL cannot tell whether extended master secret is in use")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a side shows: certificates (DER, leaf first, root last) and the leaf's key."""

    chain: Chain
    key: EllipticCurvePrivateKey


class _Context(SSL.Context):
    """A context, and the chains of the certificates that are anchors in it."""

    anchors: Mapping[object, Chain]
    """As `Calls.verified` wants them: known while `kept` is."""
    kept: Sequence[crypto.X509]


def server_context(
    credentials: Credentials, roots: Sequence[bytes], issuers: Sequence[Chain] = ()
) -> SSL.Context:
    """Return a context that shows `credentials` and verifies a client that shows a chain.

    Args:
        credentials: Ours; a root at its end is not sent.
        roots: The certificates (DER) that clients' chains may end at.
        issuers: Chains of issuers below roots, to be anchors as well (6). One whose root is
            not among `roots` counts for nothing.

    Raises:
        LocalProtocolError: They do not fit together, or a chain is not one.
    """
    context = _context()
    _show(context, credentials)
    _trust(context, roots, issuers)
    context.set_verify(SSL.VERIFY_PEER)
    return context


def client_context(
    credentials: Credentials | None, roots: Sequence[bytes], issuers: Sequence[Chain] = ()
) -> SSL.Context:
    """Return a context that verifies the server, and shows `credentials` where there are any.

    Args:
        credentials: As for `server_context`.
        roots: As for `server_context`.
        issuers: As for `server_context`.

    Raises:
        LocalProtocolError: They do not fit together, or a chain is not one.
    """
    context = _context()
    if credentials is not None:
        _show(context, credentials)
    _trust(context, roots, issuers)
    context.set_verify(SSL.VERIFY_PEER)
    return context


def discovery_context() -> SSL.Context:
    """Return a TLS client's context that verifies nobody and shows nothing."""
    context = _context()
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _context() -> _Context:
    """Return what all three have in common."""
    context = _Context(SSL.TLS_METHOD)
    context.anchors, context.kept = {}, ()
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(
        SSL.OP_NO_TICKET
        | SSL.OP_NO_COMPRESSION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
        | _OP_NO_RENEGOTIATION
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_NO_AUTO_CHAIN)
    # pyOpenSSL turns partial writes on; without them one call takes a whole batch.
    context.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
    return context


def _show(context: SSL.Context, credentials: Credentials) -> None:
    try:
        leaf, *issuers = map(x509.load_der_x509_certificate, credentials.chain)
        context.use_certificate(leaf)
        for issuer in issuers:
            if issuer.subject != issuer.issuer:
                context.add_extra_chain_cert(issuer)
        context.use_privatekey(credentials.key)
        context.check_privatekey()
    except (ValueError, TypeError, UnsupportedAlgorithm, SSL.Error) as exc:
        raise LocalProtocolError(f"credentials cannot be used: {exc}") from exc


def _trust(context: _Context, roots: Sequence[bytes], issuers: Sequence[Chain]) -> None:
    store = context.get_cert_store()
    if store is None:
        raise AssertionError("a new context has a store")
    known = {chain[0]: chain[1:] for chain in issuers if len(chain) > 1 and chain[-1] in roots}
    store.set_flags(NO_CHECK_TIME | (crypto.X509StoreFlags.PARTIAL_CHAIN if known else 0))
    try:
        for issuer, above in known.items():
            for one, next_ in pairwise(map(x509.load_der_x509_certificate, (issuer, *above))):
                one.verify_directly_issued_by(next_)
        kept = [
            (crypto.X509.from_cryptography(x509.load_der_x509_certificate(der)), _chain(der, known))
            for der in (*roots, *known)
        ]
        for anchor, _ in kept:
            store.add_cert(anchor)
    except InvalidSignature as exc:
        raise LocalProtocolError("issuer is not signed by the next of its chain") from exc
    except (ValueError, TypeError, UnsupportedAlgorithm, crypto.Error) as exc:
        raise LocalProtocolError(f"root or issuer cannot be used: {exc}") from exc
    context.anchors = {
        known_by: chain for anchor, chain in kept for known_by in (chain[0], CALLS.anchor(anchor))
    }
    context.kept = [anchor for anchor, _ in kept]


def _chain(anchor: bytes, issuers: Mapping[bytes, Chain]) -> Chain:
    """Return the chain that an anchor begins; every link that it verifies shares it."""
    return tuple(map(_shared, (anchor, *issuers.get(anchor, ()))))


class TLS:
    """One end of a TLS connection, as bytes in and bytes out.

    What the peer did wrong is kept in `failure` and never raised, so that what arrived
    before it is still delivered. Not safe for concurrent use.

    Args:
        context: From one of the three functions above.
        server_side: Whether this is the TLS server, whoever dialled.
    """

    __slots__ = (
        "_anchors",
        "_connection",
        "_grown",
        "_out",
        "_scanner",
        "ended",
        "failure",
        "handshake_done",
    )

    def __init__(self, context: SSL.Context, *, server_side: bool) -> None:
        self._connection = Connection(context, None)
        self._anchors: Mapping[object, Chain] = (
            context.anchors if isinstance(context, _Context) else {}
        )
        self._scanner = RecordScanner()
        self._out = b""
        self._grown = True
        """Whether OpenSSL keeps room that a large flight took, as the handshake's are."""
        self.handshake_done = False
        """Whether both sides have finished the handshake."""
        self.ended = False
        """Whether the peer has ended the connection in the TLS way (close_notify)."""
        self.failure: TLSError | None = None
        """What broke the connection; set once."""
        if server_side:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
            self._handshake()

    def receive(self, data: bytes | bytearray | memoryview) -> bytes | memoryview:
        """Take ciphertext; return the plaintext that it completes.

        Look at `failure` and `ended` after handling what is returned.
        """
        if self.failure is not None or self.ended or not data:
            return b""
        scanner = self._scanner
        # Nearly every read once the handshake is done and its room given back; it ends here as
        # it would below, where nothing else is due.
        if not self._grown and len(data) <= _LARGE and (due := scanner.sole(data)):
            plaintext, error = CALLS.decrypt(self._connection, data, due)
            if error is not None:
                self._stop(error, due - len(plaintext))
            return plaintext
        broken: TLSError | None = None
        try:
            scanner.feed(data)
        except TLSError as exc:
            # Whole records before the offence count: they could have come alone.
            broken = exc.with_traceback(None)  # whose frames would keep all of the connection
        if not self.handshake_done:
            CALLS.decrypt(self._connection, data, 0)
            data = b""
            self._handshake()
        plaintext = b""
        if self.handshake_done:
            due, scanner.plaintext = scanner.plaintext, 0
            probe, scanner.probe = scanner.probe and broken is None, False
            # OpenSSL judges a record that only it can when it is asked for more than is due.
            wanted = due + MAX_PLAINTEXT if probe else due
            if data or wanted:
                plaintext, error = CALLS.decrypt(self._connection, data, wanted)
                if error is not None:
                    self._stop(error, due - len(plaintext))
            if len(data) > _LARGE:
                self._grown = True
            elif self._grown:
                self._grown = not CALLS.shed(self._connection)
        self.failure = broken or self.failure
        return plaintext

    @property
    def writable(self) -> bool:
        """Whether `write` may be called."""
        return self.handshake_done and self.failure is None

    def write(self, plaintext: bytes) -> None:
        """Encrypt a batch; `data_to_send` then returns it.

        Raises:
            LocalProtocolError: The handshake is not done, or the connection has failed.
        """
        self._out = self.sealed(plaintext)

    def sealed(self, plaintext: bytes) -> bytes:
        """Encrypt a batch; return it, behind whatever else is to be written now.

        Raises:
            LocalProtocolError: As for `write`.
        """
        if not self.handshake_done or self.failure is not None:
            raise LocalProtocolError("cannot write: the TLS handshake is not done")
        out, self._out = self._out, b""
        if not plaintext:
            return out
        try:
            sealed = CALLS.encrypt(self._connection, plaintext)
        except SSL.Error as exc:
            self._out = out
            raise LocalProtocolError(f"cannot write: {_reason(exc)}") from exc
        if len(plaintext) > _LARGE:
            self._grown = True
        return out + sealed if out else sealed

    def data_to_send(self) -> bytes:
        """Return the ciphertext to write to the peer now, once."""
        data, self._out = self._out, b""
        return data

    def verified_chain(self) -> Chain:
        """Return the peer's chain (DER, leaf first, root last) as OpenSSL verified it.

        Empty where the peer has shown none. On a discovery context it means nothing.
        """
        below, anchored = CALLS.verified(self._connection, self._anchors)
        if len(below) > 1:  # an issuer that is no anchor is still one of a few
            below = (below[0], *map(_shared, below[1:]))
        return below + anchored

    def shown_chain(self) -> Chain:
        """Return the chain that the peer has shown in a handshake that did not end well.

        For log lines only: nothing about it is verified.
        """
        return self._scanner.shown_chain()

    def forget_shown_chain(self) -> None:
        """Free what `shown_chain` reads: the peer is known."""
        self._scanner.forget()

    def exporter(self, label: bytes, length: int) -> bytes:
        """Return keying material of this connection (RFC 5705), without a context.

        Raises:
            LocalProtocolError: The handshake is not done.
        """
        if not self.handshake_done:
            raise LocalProtocolError("no keying material before the TLS handshake is done")
        return self._connection.export_keying_material(label, length)

    def _handshake(self) -> None:
        try:
            done = CALLS.shake(self._connection)
        except SSL.Error as exc:
            self.failure = _failure(exc)
        else:
            if done:
                self._finish()
            else:
                self._scanner.probe = False
        self._drain()

    def _finish(self) -> None:
        """Refuse a connection whose exporter a man in the middle could share."""
        question = _extended_master_secret
        if question is None or question(self._connection._ssl) != 1:
            self.failure = TLSError("the peer does not use extended master secret")
        else:
            self.handshake_done = True

    def _stop(self, error: SSL.Error, missing: int) -> None:
        """Take note of what ended a read, `missing` bytes before it had what whole records hold."""
        if isinstance(error, SSL.WantReadError):
            self._scanner.plaintext += missing
        elif isinstance(error, SSL.ZeroReturnError):
            self.ended = True
        else:
            self.failure = _failure(error)
        self._drain()

    def _drain(self) -> None:
        """Take what OpenSSL itself wants to say: handshake messages and alerts."""
        self._out += CALLS.take(self._connection)


@lru_cache(maxsize=64)
def _shared(der: bytes) -> bytes:
    """Return the same bytes for the same issuer: thousands of links keep a few."""
    return der


def _reason(error: SSL.Error) -> str:
    """Return OpenSSL's own words for an error."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [reason for *_, reason in queue if reason]
    return ", ".join(reasons) or type(error).__name__


def _failure(error: SSL.Error) -> TLSError:
    """Convert OpenSSL's error: who ended it, and whether a chain was the reason."""
    reason = _reason(error)
    if " alert " in f" {reason} ":
        about = any(words in reason for words in _ABOUT_CERTIFICATES)
        return DistrustedError(reason) if about else AlertError(reason)
    if "certificate verify failed" in reason:
        return UntrustedChainError(reason)
    return TLSError(reason)

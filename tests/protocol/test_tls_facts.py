"""Facts about pyOpenSSL and OpenSSL that the design rests on.

Each was tried before it was relied upon. When an upgrade changes one, its test fails here
and not in production.
"""

import ast
import contextlib
import datetime
import importlib.util
import inspect
from collections.abc import Sequence

import OpenSSL._util
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto
from OpenSSL._util import lib as openssl

import protocol.tls
from protocol.errors import AlertError, DistrustedError, LocalProtocolError, UntrustedChainError
from protocol.tls import (
    CIPHERS,
    NO_CHECK_TIME,
    TLS,
    Credentials,
    client_context,
    discovery_context,
    server_context,
)
from tests.protocol.pairs import credentials, root
from tests.support.certs import EPOCH, Authority

Ends = tuple[TLS, TLS]

LABEL = b"EXPORTER-test"


def shake(client_side: SSL.Context, server_side: SSL.Context) -> Ends:
    """Run a handshake in memory; return (client, server)."""
    client, server = TLS(client_side, server_side=False), TLS(server_side, server_side=True)
    while flight := client.data_to_send():
        server.receive(flight)
        client.receive(server.data_to_send())
    server.receive(client.data_to_send())
    return client, server


def member_contexts() -> tuple[SSL.Context, SSL.Context]:
    roots = [root().der]
    return client_context(credentials("client"), roots), server_context(
        credentials("server"), roots
    )


def connection(tls: TLS) -> SSL.Connection:
    """What tests ask OpenSSL directly."""
    return tls._connection


def test_no_context_has_a_python_callback() -> None:
    # A callback is a page that is writable and executable: MemoryDenyWriteExecute= kills it.
    tree = ast.parse(inspect.getsource(protocol.tls))
    calls = [
        (node.func.attr, len(node.args) + len(node.keywords))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    assert [name for name, _ in calls if "callback" in name] == []
    assert {arguments for name, arguments in calls if name == "set_verify"} == {1}
    for context in (*member_contexts(), discovery_context()):
        held = [name for name in vars(context) if "callback" in name or "helper" in name]
        assert held, "pyOpenSSL names its callbacks otherwise now"
        assert [name for name in held if getattr(context, name) is not None] == []


def test_the_chain_is_there_after_the_handshake_without_a_callback() -> None:
    client, server = shake(*member_contexts())
    assert server.verified_chain() == credentials("client").chain
    assert client.verified_chain() == credentials("server").chain


@pytest.mark.req("B4")
def test_a_session_is_not_resumed() -> None:
    client_side, server_side = member_contexts()
    first, _ = shake(client_side, server_side)
    session = connection(first).get_session()
    assert session is not None
    again = SSL.Connection(client_side, None)
    again.set_session(session)
    again.set_connect_state()
    server = TLS(server_side, server_side=True)
    flights = 0
    while not server.handshake_done:
        with pytest.raises(SSL.WantReadError):
            again.do_handshake()
        server.receive(again.bio_read(65536))
        again.bio_write(server.data_to_send())
        flights += 1
    # A resumption takes the server's FINISHED first and shows no certificate.
    assert flights == 2
    assert server.verified_chain() == credentials("client").chain


def test_without_our_options_a_session_is_resumed_and_shows_no_chain() -> None:
    # Why the options are there: the server below believes a client it never verified.
    def context(role: str) -> SSL.Context:
        made = SSL.Context(SSL.TLSv1_2_METHOD)
        shown = credentials(role)
        made.use_certificate(x509.load_der_x509_certificate(shown.chain[0]))
        made.use_privatekey(shown.key)
        made.set_session_id(b"test")
        return made

    def run(session: SSL.Session | None) -> tuple[SSL.Connection, SSL.Connection]:
        client, server = SSL.Connection(client_side, None), SSL.Connection(server_side, None)
        client.set_connect_state()
        server.set_accept_state()
        if session is not None:
            client.set_session(session)
        for _ in range(4):
            for end, other in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    end.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(end.bio_read(65536))
        return client, server

    client_side, server_side = context("client"), context("server")
    store = server_side.get_cert_store()
    assert store is not None
    store.set_flags(NO_CHECK_TIME)
    ca = x509.load_der_x509_certificate(credentials("client").chain[1])
    client_side.add_extra_chain_cert(ca)
    store.add_cert(crypto.X509.from_cryptography(root().certificate))
    server_side.set_verify(SSL.VERIFY_PEER)
    first, verified = run(None)
    _, resumed = run(first.get_session())
    assert verified.get_verified_chain() is not None
    assert resumed.get_finished() is not None
    assert resumed.get_verified_chain() is None


def test_a_context_is_frozen_by_its_first_connection() -> None:
    context, _ = member_contexts()
    TLS(context, server_side=False)
    with pytest.raises(ValueError, match="already been used"):
        context.set_verify(SSL.VERIFY_NONE)


def test_a_private_key_goes_in_from_memory_and_stays_an_object_of_cryptography() -> None:
    shown = credentials("server")
    assert isinstance(shown.key, ec.EllipticCurvePrivateKey)
    server_context(shown, [])


def test_no_check_time_is_the_number_of_openssl() -> None:
    assert NO_CHECK_TIME == 0x200000
    assert crypto.X509StoreFlags.PARTIAL_CHAIN == 0x80000, "the neighbours have moved"


def test_dates_are_not_checked_by_openssl() -> None:
    expired = root().issue("client", not_before=EPOCH, not_after=EPOCH)
    _, server_side = member_contexts()
    _, server = shake(client_context(expired, [root().der]), server_side)
    assert server.handshake_done
    assert server.verified_chain() == expired.chain


def test_without_the_flag_dates_are_checked() -> None:
    ancient = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    expired = root().issue("client", not_before=ancient, not_after=ancient)
    leaf = crypto.X509.from_cryptography(x509.load_der_x509_certificate(expired.chain[0]))

    def verify(flags: int) -> None:
        store = crypto.X509Store()
        store.add_cert(crypto.X509.from_cryptography(root().certificate))
        store.set_flags(flags)
        crypto.X509StoreContext(store, leaf).verify_certificate()

    verify(NO_CHECK_TIME)
    with pytest.raises(crypto.X509StoreContextError):
        verify(0)


def test_a_store_takes_a_time_once() -> None:
    leaf = crypto.X509.from_cryptography(
        x509.load_der_x509_certificate(root().issue("client").chain[0])
    )
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(root().certificate))
    store.set_time(EPOCH)
    crypto.X509StoreContext(store, leaf).verify_certificate()
    store.set_time(EPOCH + datetime.timedelta(days=9000))
    # It is long expired at that time; the second call has changed nothing.
    crypto.X509StoreContext(store, leaf).verify_certificate()


@pytest.mark.parametrize("name", ["server.test Root 0", "other.test Root 0"])
def test_a_wrong_root_is_refused_by_the_server(name: str) -> None:
    thief = Authority(name).issue("client")
    client, server = shake(
        client_context(thief, [root().der]), server_context(credentials("server"), [root().der])
    )
    assert isinstance(server.failure, UntrustedChainError)
    assert isinstance(client.failure, DistrustedError)
    assert not server.handshake_done
    assert not client.handshake_done
    assert server.shown_chain()[0] == thief.chain[0]


@pytest.mark.parametrize("name", ["server.test Root 0", "other.test Root 0"])
def test_a_wrong_root_is_refused_by_the_client(name: str) -> None:
    impostor = Authority(name).issue("server")
    client, server = shake(
        client_context(credentials("client"), [root().der]),
        server_context(impostor, [root().der]),
    )
    assert isinstance(client.failure, UntrustedChainError)
    assert isinstance(server.failure, DistrustedError)
    assert client.shown_chain()[0] == impostor.chain[0]


def test_a_certificate_that_has_not_signed_itself_is_no_root() -> None:
    issuer = credentials("client").chain[1]
    client, server = shake(
        client_context(credentials("client"), [root().der]),
        server_context(credentials("server"), [issuer]),
    )
    assert isinstance(server.failure, UntrustedChainError)
    assert isinstance(client.failure, DistrustedError)


def test_a_leaf_cannot_sign_a_leaf() -> None:
    holder = root().issue("client")
    rogue = Authority("client", root(), key=holder.key)
    rogue.certificate = x509.load_der_x509_certificate(holder.chain[0])
    _, server = shake(
        client_context(rogue.issue("client"), [root().der]),
        server_context(credentials("server"), [root().der]),
    )
    assert isinstance(server.failure, UntrustedChainError)


def test_a_path_longer_than_the_root_allows_is_refused() -> None:
    too_deep = root().below().below("CA of a CA").issue("client")
    _, server = shake(
        client_context(too_deep, [root().der]),
        server_context(credentials("server"), [root().der]),
    )
    assert isinstance(server.failure, UntrustedChainError)


class TestKnownIssuers:
    """An issuer that is an anchor saves its own verification, and lets in nobody else."""

    @staticmethod
    def server(*issuers: tuple[bytes, ...], roots: Sequence[bytes] = ()) -> SSL.Context:
        return server_context(credentials("server"), roots or [root().der], issuers)

    @staticmethod
    def shake(shown: Credentials, server_side: SSL.Context) -> TLS:
        return shake(client_context(shown, [root().der]), server_side)[1]

    def test_the_chain_is_whole_all_the_same(self) -> None:
        shown = credentials("client")
        server = self.shake(shown, self.server(shown.chain[1:]))
        assert connection(server).get_verified_chain() is not None
        assert len(connection(server).get_verified_chain() or []) == 2
        assert server.verified_chain() == shown.chain

    def test_and_at_the_side_of_the_tls_client(self) -> None:
        shown = root().below("CA of a neighbour").issue("server")
        context = client_context(credentials("client"), [root().der], [shown.chain[1:]])
        client, _ = shake(context, server_context(shown, [root().der]))
        assert client.verified_chain() == shown.chain

    @pytest.mark.parametrize("role", ["client", "server"])
    def test_whom_another_issuer_has_signed_is_verified_up_to_the_root(self, role: str) -> None:
        shown = root().below("another CA").issue(role) if role == "client" else credentials(role)
        server = self.shake(shown, self.server(credentials("client").chain[1:]))
        assert server.verified_chain() == shown.chain

    def test_an_issuer_of_the_same_name_with_another_key_is_refused(self) -> None:
        thief = Authority("client CA", Authority()).issue("client")
        server = self.shake(thief, self.server(credentials("client").chain[1:]))
        assert isinstance(server.failure, UntrustedChainError)

    def test_it_counts_for_nothing_once_its_root_does(self) -> None:
        shown, other = credentials("client"), Authority("other.test Root 0")
        server = self.shake(shown, self.server(shown.chain[1:], roots=[other.der]))
        assert isinstance(server.failure, UntrustedChainError)

    def test_a_leaf_of_it_signs_nothing(self) -> None:
        ca = root().below()
        holder = ca.issue("client")
        rogue = Authority("client", ca, key=holder.key)
        rogue.certificate = x509.load_der_x509_certificate(holder.chain[0])
        server = self.shake(rogue.issue("client"), self.server(ca.chain))
        assert isinstance(server.failure, UntrustedChainError)

    def test_a_chain_whose_signatures_do_not_hold_is_none(self) -> None:
        forged = Authority("client CA", Authority())  # its parent has our root's name only
        with pytest.raises(LocalProtocolError, match="not signed by the next"):
            self.server((forged.der, root().der))


@pytest.mark.parametrize("side", ["client", "server"])
def test_the_extended_key_usage_is_checked(side: str) -> None:
    usage = x509.oid.ExtendedKeyUsageOID
    wrong = {"client": usage.SERVER_AUTH, "server": usage.CLIENT_AUTH}[side]
    shown = root().issue(side, usages=[wrong])
    chains = {"client": credentials("client"), "server": credentials("server"), side: shown}
    client, server = shake(
        client_context(chains["client"], [root().der]),
        server_context(chains["server"], [root().der]),
    )
    refuser = server if side == "client" else client
    assert isinstance(refuser.failure, UntrustedChainError)


def test_a_client_may_show_no_certificate_and_then_there_is_no_chain() -> None:
    _, server_side = member_contexts()
    _, server = shake(client_context(None, [root().der]), server_side)
    assert server.handshake_done
    assert server.verified_chain() == ()


@pytest.mark.parametrize(
    "version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_3_VERSION], ids=["1.0", "1.1", "1.3"]
)
@pytest.mark.parametrize("side", ["client", "server"])
def test_only_tls_1_2_is_spoken(side: str, version: int) -> None:
    other = SSL.Context(SSL.TLS_METHOD)
    other.set_min_proto_version(version)
    other.set_max_proto_version(version)
    other.set_cipher_list(b"ALL:@SECLEVEL=0")
    ours = TLS(
        client_context(credentials("client"), [root().der])
        if side == "client"
        else server_context(credentials("server"), [root().der]),
        server_side=side == "server",
    )
    stranger = SSL.Connection(other, None)
    if side == "client":
        stranger.set_accept_state()
        shown = credentials("server")
        stranger.use_certificate(x509.load_der_x509_certificate(shown.chain[0]))
        stranger.use_privatekey(shown.key)
        stranger.bio_write(ours.data_to_send())
    else:
        stranger.set_connect_state()
    with pytest.raises(SSL.Error):
        stranger.do_handshake()
    ours.receive(stranger.bio_read(65536))
    assert ours.failure is not None
    assert not ours.handshake_done


def test_tls_1_2_with_our_ciphers_and_no_compression() -> None:
    client, server = shake(*member_contexts())
    for end in (client, server):
        assert connection(end).get_protocol_version_name() == "TLSv1.2"
        assert connection(end).get_cipher_name() == "ECDHE-ECDSA-AES128-GCM-SHA256"
    # The list has TLS 1.3 suites too, which a context of TLS 1.2 cannot use.
    offered = [n for n in connection(client).get_cipher_list() if not n.startswith("TLS_")]
    assert offered == CIPHERS.decode().split(":")


def test_both_ends_export_the_same_material_and_other_labels_other_material() -> None:
    client, server = shake(*member_contexts())
    assert client.exporter(LABEL, 32) == server.exporter(LABEL, 32)
    assert len(client.exporter(LABEL, 32)) == 32
    assert client.exporter(LABEL, 32) != client.exporter(LABEL + b"2", 32)
    other, _ = shake(*member_contexts())
    assert client.exporter(LABEL, 32) != other.exporter(LABEL, 32)


def test_nothing_is_exported_before_the_handshake_is_done() -> None:
    with pytest.raises(LocalProtocolError):
        TLS(discovery_context(), server_side=False).exporter(LABEL, 32)


def test_extended_master_secret_is_negotiated_and_can_be_asked_for() -> None:
    for end in shake(*member_contexts()):
        assert openssl.SSL_get_extms_support(connection(end)._ssl) == 1


def test_a_peer_without_extended_master_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol.tls, "_extended_master_secret", lambda _ssl: 0)
    client, server = shake(*member_contexts())
    for end in (client, server):
        assert end.failure is not None
        assert "extended master secret" in str(end.failure)
        assert not end.writable


def test_an_openssl_that_cannot_tell_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenSSL._util, "lib", object())
    spec = importlib.util.spec_from_file_location("tls_without_the_call", protocol.tls.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match="extended master secret"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_renegotiation_is_refused() -> None:
    client, server = shake(*member_contexts())
    raw = connection(client)
    # OP_NO_RENEGOTIATION: our own side does not begin one either.
    with pytest.raises(SSL.Error):
        raw.renegotiate()
    # A peer without the option sends a second handshake record: refused unread.
    assert server.receive(b"\x16\x03\x03\x00\x01x") == b""
    assert "renegotiation" in str(server.failure)


def test_each_context_has_the_options_that_the_module_names() -> None:
    for context in (*member_contexts(), discovery_context()):
        options = context.set_options(0)
        assert options & SSL.OP_NO_COMPRESSION
        assert options & SSL.OP_NO_TICKET
        assert options & SSL.OP_CIPHER_SERVER_PREFERENCE
        assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF


def test_release_buffers_and_whole_writes_are_set() -> None:
    context = discovery_context()
    mode = context.set_mode(0)
    assert mode & SSL.MODE_RELEASE_BUFFERS
    assert not mode & 0x1, "partial writes: one send would not take a batch"
    client, server = shake(*member_contexts())
    batch = bytes(range(256)) * 1024
    client.write(batch)
    assert server.receive(client.data_to_send()) == batch


def test_close_notify_is_the_end() -> None:
    client, server = shake(*member_contexts())
    client.write(b"last")
    connection(client).shutdown()
    data = client.data_to_send() + connection(client).bio_read(65536)
    assert server.receive(data) == b"last"
    assert server.ended
    assert server.receive(b"no TLS") == b""
    assert server.failure is None


def test_after_a_failure_nothing_is_read_and_nothing_written() -> None:
    client, server = shake(*member_contexts())
    server.receive(b"\x16\x03\x03\x00\x01x")
    failure = server.failure
    assert "renegotiation" in str(failure)
    client.write(b"too late")
    assert server.receive(client.data_to_send()) == b""
    assert server.failure is failure
    with pytest.raises(LocalProtocolError, match="cannot write"):
        server.write(b"x")


def test_writing_needs_a_handshake_and_an_open_connection() -> None:
    client, server = shake(*member_contexts())
    client.write(b"")
    assert client.data_to_send() == b""
    with pytest.raises(LocalProtocolError, match="handshake is not done"):
        TLS(discovery_context(), server_side=False).write(b"x")
    connection(server).shutdown()
    with pytest.raises(LocalProtocolError, match="cannot write"):
        server.write(b"x")


def test_what_is_sealed_comes_behind_what_was_written() -> None:
    client, server = shake(*member_contexts())
    server.write(b"first ")
    assert client.receive(server.sealed(b"second")) == b"first second"
    server.write(b"kept")
    connection(server).shutdown()
    with pytest.raises(LocalProtocolError, match="cannot write"):
        server.sealed(b"lost")
    assert client.receive(server.data_to_send()) == b"kept"


def test_what_was_written_and_not_taken_stays_in_front_of_what_openssl_says() -> None:
    client, server = shake(*member_contexts())
    server.write(b"written")
    # A record under no key: OpenSSL answers with an alert.
    server.receive(b"\x17\x03\x03" + (24).to_bytes(2) + bytes(24))
    assert server.failure is not None
    assert client.receive(server.data_to_send()) == b"written"
    assert isinstance(client.failure, AlertError)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda shown: (shown.chain, ec.generate_private_key(ec.SECP256R1())),
        lambda shown: ((b"no certificate",), shown.key),
        lambda shown: ((), shown.key),
    ],
    ids=["another key", "no certificate", "empty"],
)
def test_credentials_that_do_not_fit_are_refused(break_it: object) -> None:
    assert callable(break_it)
    chain, key = break_it(credentials("server"))
    with pytest.raises(LocalProtocolError, match="credentials cannot be used"):
        server_context(protocol.tls.Credentials(chain, key), [])


def test_a_root_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="cannot be used"):
        client_context(None, [b"no certificate"])


def test_a_root_that_is_named_twice_is_kept_twice() -> None:
    # A place in memory is one of an anchor only while that lives.
    context = server_context(credentials("server"), [root().der, root().der])
    assert isinstance(context, protocol.tls._Context)
    places = {known for known in context.anchors if not isinstance(known, bytes)}
    assert places
    assert places <= {anchor._x509 for anchor in context.kept}

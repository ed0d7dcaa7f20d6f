"""The direct calls of OpenSSL do what pyOpenSSL's public ones do, errors included."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL import SSL
from OpenSSL._util import lib

import protocol.calls
import protocol.tls
from protocol.calls import CALLS, Calls, Ciphertext, Direct, Plaintext, Public
from protocol.tls import TLS, Credentials, client_context, server_context
from tests.protocol.pairs import contexts, credentials, root
from tests.support.certs import Authority

SIZES = [1, 200, 4096, 4097, 16384, 16385, 300_000]
CUT = b"\x17\x03\x03\x00\x20" + bytes(32)
"""A record that nobody has encrypted."""


@pytest.fixture(params=[Public(), Direct()], ids=["public", "direct"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Calls:
    chosen: Calls = request.param
    monkeypatch.setattr(protocol.tls, "CALLS", chosen)
    return chosen


def joined(
    client_side: SSL.Context | None = None, server_side: SSL.Context | None = None
) -> tuple[TLS, TLS]:
    """The client and the server of a connection that stands."""
    client = TLS(client_side or contexts("client", server_side=False), server_side=False)
    server = TLS(server_side or contexts("server", server_side=True), server_side=True)
    while flight := client.data_to_send():
        server.receive(flight)
        client.receive(server.data_to_send())
    server.receive(client.data_to_send())
    assert server.handshake_done
    return client, server


def test_here_the_direct_ones_are_used() -> None:
    assert isinstance(CALLS, Direct)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lent", [bytes, bytearray, memoryview])
def test_bytes_arrive_as_they_were(calls: Calls, size: int, lent: Callable[[bytes], Any]) -> None:
    client, server = joined()
    data = bytes(range(256)) * (size // 256 + 1)
    client.write(data)
    assert server.receive(lent(client.data_to_send())) == data
    server.write(data[:size])
    assert client.receive(lent(server.data_to_send())) == data[:size]


def test_nothing_to_read_and_nothing_to_take_are_said_in_the_same_way(calls: Calls) -> None:
    connection = joined()[1]._connection
    data, error = calls.decrypt(connection, b"", 100)
    assert data == b""
    assert isinstance(error, SSL.WantReadError)
    assert calls.decrypt(connection, b"", 0) == (b"", None)
    assert calls.take(connection) == b""


def test_an_end_is_an_end(calls: Calls) -> None:
    client, server = joined()
    client.write(b"last")
    client._connection.shutdown()
    sealed = client.data_to_send() + calls.take(client._connection)
    data, error = calls.decrypt(server._connection, sealed, 100)
    assert data == b"last"
    assert isinstance(error, SSL.ZeroReturnError)


def test_what_came_before_a_forged_record_is_given_with_its_error(calls: Calls) -> None:
    client, server = joined()
    client.write(bytes(40_000))
    data, error = calls.decrypt(server._connection, client.data_to_send() + CUT, 50_000)
    assert data == bytes(40_000)
    assert type(error) is SSL.Error
    assert "bad record mac" in str(error) or "decryption failed" in str(error)


def test_a_handshake_goes_on_until_it_is_done(calls: Calls) -> None:
    client = SSL.Connection(contexts("client", server_side=False), None)
    client.set_connect_state()
    server = TLS(contexts("server", server_side=True), server_side=True)
    assert not calls.shake(client)
    server.receive(calls.take(client))
    calls.decrypt(client, server.data_to_send(), 0)
    assert not calls.shake(client)
    server.receive(calls.take(client))
    calls.decrypt(client, server.data_to_send(), 0)
    assert calls.shake(client)
    assert calls.shake(client), "and stays so"


def test_a_handshake_that_fails_says_why(calls: Calls) -> None:
    client = SSL.Connection(contexts("client", server_side=False), None)
    client.set_connect_state()
    assert not calls.shake(client)
    calls.decrypt(client, b"\x15\x03\x03\x00\x02\x02\x28", 0)
    with pytest.raises(SSL.Error, match="handshake failure") as failed:
        calls.shake(client)
    assert type(failed.value) is SSL.Error


def test_more_than_was_expected_is_taken_too(calls: Calls) -> None:
    client, server = joined()
    lib.SSL_write(client._connection._ssl, bytes(100_000), 100_000)
    assert (
        server.receive(calls.encrypt(client._connection, b"behind")) == bytes(100_000) + b"behind"
    )


def test_more_than_was_expected_is_taken_too_behind_a_batch(calls: Calls) -> None:
    client, server = joined()
    lib.SSL_write(client._connection._ssl, bytes(100_000), 100_000)
    assert server.receive(calls.encrypt(client._connection, bytes(20_000))) == bytes(120_000)


def test_a_record_that_was_forged_breaks_the_connection_with_its_reason(calls: Calls) -> None:
    _, server = joined()
    server.receive(CUT)
    assert "decryption failed" in str(server.failure) or "bad record mac" in str(server.failure)


def test_a_batch_of_records_is_read_without_an_error(calls: Calls) -> None:
    client, server = joined()
    client.write(bytes(40_000))
    sealed = client.data_to_send()
    assert calls.decrypt(server._connection, sealed, 40_000) == (bytes(40_000), None)


def test_a_record_is_cut_as_it_is_asked_for(calls: Calls) -> None:
    client, server = joined()
    client.write(b"0123456789")
    assert calls.decrypt(server._connection, client.data_to_send(), 4) == (b"0123", None)
    assert calls.decrypt(server._connection, b"", 6) == (b"456789", None)


@pytest.mark.parametrize("behind", [0, 1, 5, 6, 28, 29, 30, 33])
def test_what_comes_with_the_end_of_the_handshake_is_not_lost(calls: Calls, behind: int) -> None:
    client = TLS(contexts("client", server_side=False), server_side=False)
    server = TLS(contexts("server", server_side=True), server_side=True)
    server.receive(client.data_to_send())
    client.receive(server.data_to_send())
    server.receive(client.data_to_send())
    # A TLS server is done first, and may speak behind its FINISHED.
    server.write(b"at once")
    flight = server.data_to_send()
    place = len(flight) - behind
    heard = client.receive(flight[:place]), client.receive(flight[place:])
    assert b"".join(heard) == b"at once"
    client.write(b"and back")
    assert server.receive(client.data_to_send()) == b"and back"


def test_the_room_of_a_flight_is_given_back_once_nothing_is_in_it(calls: Calls) -> None:
    client, server = joined()
    ends = client._connection, server._connection
    ends[0].send(b"on its way")
    assert calls.shed(ends[0]) is isinstance(calls, Public)
    flight = calls.take(ends[0])
    calls.decrypt(ends[1], flight[:-1], 0)
    assert calls.shed(ends[1]) is isinstance(calls, Public)
    assert calls.decrypt(ends[1], flight[-1:], 10) == (b"on its way", None)
    before = [bio for end in ends for bio in (end._into_ssl, end._from_ssl)]
    assert all(calls.shed(end) for end in ends)
    after = [bio for end in ends for bio in (end._into_ssl, end._from_ssl)]
    kept = [old == new for old, new in zip(before, after, strict=True)]
    assert kept == [isinstance(calls, Public)] * 4
    server.write(b"still there")
    assert client.receive(server.data_to_send()) == b"still there"


def test_a_connection_that_stands_keeps_no_room_of_its_handshake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shed: list[SSL.Connection] = []

    class Watched(Direct):
        def shed(self, connection: SSL.Connection) -> bool:
            shed.append(connection)
            return super().shed(connection)

    monkeypatch.setattr(protocol.tls, "CALLS", Watched())
    client, server = joined()
    assert shed == [server._connection, client._connection]
    client.write(b"no more is given back")
    server.receive(client.data_to_send())
    assert len(shed) == 2
    # What is large is kept room for until something small comes.
    for size, sheds in ((5000, 2), (5000, 2), (1, 3), (1, 3)):
        client.write(bytes(size))
        server.receive(client.data_to_send())
        assert len(shed) == sheds
    server.write(bytes(5000))
    server.data_to_send()
    client.write(b"x")
    server.receive(client.data_to_send())
    assert len(shed) == 4


def verified(shown: Credentials, *issuers: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The chain that a server verifies, which takes `issuers` for anchors too."""
    server_side = server_context(credentials("server"), [root().der], issuers)
    client_side = client_context(shown, [root().der])
    return joined(client_side, server_side)[1].verified_chain()


def test_a_verified_chain_is_whole_with_and_without_known_issuers(calls: Calls) -> None:
    shown = credentials("client")
    assert verified(shown) == shown.chain
    assert verified(shown, shown.chain[1:]) == shown.chain
    assert verified(credentials("server"), shown.chain[1:]) == credentials("server").chain


def test_a_chain_is_what_was_verified_and_not_what_was_shown(calls: Calls) -> None:
    # Two certificates of one CA: the same name and key, and only one of them is known.
    known, other = root().below(), root().below()
    other.key, other.name = known.key, known.name
    other.certificate = Authority(known.name, root(), key=known.key).certificate
    assert other.der != known.der
    shown = other.issue("client")
    assert verified(shown, known.chain) == (shown.chain[0], *known.chain)


def test_what_is_in_the_store_is_not_written_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = credentials("client")
    server_side = server_context(credentials("server"), [root().der], [shown.chain[1:]])
    server = joined(server_side=server_side)[1]
    written: list[bytes] = []
    encoded = protocol.calls._encoded

    def watched(certificate: object) -> bytes:
        written.append(encoded(certificate))
        return written[-1]

    monkeypatch.setattr(protocol.calls, "_encoded", watched)
    assert server.verified_chain() == shown.chain
    assert written == [shown.chain[0]]


def test_an_anchor_that_cannot_be_known_by_its_place_is_known_by_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol.calls, "_encoded", lambda _certificate: b"another one")
    shown = credentials("client")
    server_side = server_context(credentials("server"), [root().der], [shown.chain[1:]])
    assert joined(server_side=server_side)[1].verified_chain() == shown.chain


def test_what_a_certificate_is_written_into_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[object] = []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(lib, name)

        def BIO_free(self, bio: object) -> int:  # noqa: N802 - its name in C
            freed.append(bio)
            return int(lib.BIO_free(bio))

    _, server = joined()
    monkeypatch.setattr(protocol.calls, "lib", Watched())
    assert Direct().verified(server._connection, {})[0]
    assert len(freed) == len(credentials("client").chain)


def test_a_connection_is_not_kept_where_callbacks_would_find_it() -> None:
    kept = SSL.Connection._reverse_mapping
    before = len(kept)
    client, server = joined()
    assert len(kept) == before
    assert not server._connection._reverse_mapping
    theirs = SSL.Connection(contexts("client", server_side=False), None)
    assert kept[theirs._ssl] is theirs, "pyOpenSSL keeps them otherwise now"
    assert client.handshake_done


def test_what_cannot_be_written_is_an_error(calls: Calls) -> None:
    connection = SSL.Connection(contexts("client", server_side=False), None)
    connection.set_connect_state()
    with pytest.raises(SSL.Error):
        calls.encrypt(connection, b"too early")


REACHED = {
    "BIO_write",
    "BIO_read",
    "SSL_read",
    "SSL_write",
    "SSL_do_handshake",
    "SSL_get_error",
    "SSL_ERROR_WANT_READ",
    "BIO_get_mem_data",
    "BIO_new",
    "BIO_s_mem",
    "SSL_set_bio",
    "SSL_get0_verified_chain",
    "sk_X509_num",
    "sk_X509_value",
    "i2d_X509_bio",
    "BIO_free",
}


@pytest.mark.parametrize("missing", sorted(REACHED))
def test_without_what_is_reached_for_the_public_ones_are_used(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = REACHED - {missing}
    present = {name: getattr(lib, name) for name in names}
    monkeypatch.setattr(protocol.calls, "lib", SimpleNamespace(**present))
    assert isinstance(protocol.calls._chosen(), Public)


def test_calls_that_give_other_bytes_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Direct):
        def decrypt(
            self, connection: object, data: Ciphertext, size: int
        ) -> tuple[Plaintext, SSL.Error | None]:
            return super().decrypt(connection, bytes(data)[1:], size)

    monkeypatch.setattr(protocol.calls, "Direct", Other)
    assert isinstance(protocol.calls._chosen(), Public)


def test_bios_that_openssl_does_not_use_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(Direct):
        def shed(self, connection: Any) -> bool:  # noqa: ANN401
            if not super().shed(connection):
                return False
            connection._into_ssl = lib.BIO_new(lib.BIO_s_mem())
            return True

    monkeypatch.setattr(protocol.calls, "Direct", Deaf)
    assert isinstance(protocol.calls._chosen(), Public)

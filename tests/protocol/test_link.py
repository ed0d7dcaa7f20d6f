"""A pair of links in memory, handshake included; each attack with its power and its end."""

import pytest

from protocol.access import CLIENT, HUB, SERVER, STRANGER, ZONE_SERVER, LinkClass, allowed
from protocol.codec import encode
from protocol.codes import CloseCode
from protocol.errors import LinkClosedError, LocalProtocolError
from protocol.frames import FrameType, encode_frame
from protocol.limits import Limits
from protocol.link import Closed, Event, Link, Opened, Received
from protocol.messages import (
    Ack,
    Close,
    Enrol,
    HeadNotice,
    Hello,
    LedgerEntries,
    LedgerGet,
    Message,
    NonceGet,
    Ping,
    Pong,
    Register,
    Relay,
    Report,
)
from protocol.states import State
from protocol.tls import TLS, client_context, discovery_context, server_context
from tests.protocol.examples import EXAMPLES, GARBAGE, SLOT
from tests.protocol.pairs import (
    DEADLINE,
    IDLE,
    Cut,
    End,
    Pair,
    TestPeer,
    believe,
    bytewise,
    client_link,
    contexts,
    credentials,
    pair,
    refuse,
    root,
    server_link,
    whole,
)
from tests.support.certs import Authority

GET = LedgerGet(call=1, slot=SLOT, n=0, entry_id=SLOT)
classes = pytest.mark.parametrize("link_class", LinkClass)


def member(cut: Cut = whole) -> Pair:
    return pair(LinkClass.MEMBER, cut=cut).run()


def inject(source: Link, frames: bytes) -> bytes:
    """What a peer could send that does not keep to our rules: frames straight into TLS."""
    source._tls.write(frames)
    return source._tls.data_to_send()


class TestOpening:
    @classes
    @pytest.mark.parametrize("cut", [whole, bytewise])
    def test_a_pair_opens_and_talks(self, link_class: LinkClass, cut: Cut) -> None:
        joined = pair(link_class, cut=cut).run()
        assert joined.client.opened.link_class is link_class
        assert joined.server.link.link_class is link_class
        assert joined.server.opened.link_class is link_class
        assert joined.client.link.binding() == joined.server.link.binding()
        joined.client.link.send(GET)
        joined.run()
        answer = LedgerEntries(call=1, slot=SLOT, first=0, entries=[bytes(16_000)] * 4)
        assert joined.server.messages == [GET]
        joined.server.link.send(answer)
        joined.run()
        assert joined.client.messages == [answer]

    @pytest.mark.req("A12", "E1")
    @pytest.mark.parametrize(
        ("client", "server"),
        [
            (CLIENT, SERVER),
            (CLIENT, ZONE_SERVER),
            (CLIENT, CLIENT),
            (HUB, SERVER),
            (ZONE_SERVER, HUB),
        ],
    )
    def test_both_sides_of_a_member_link_know_each_other(self, client: str, server: str) -> None:
        joined = pair(LinkClass.MEMBER, client=client, server=server).run()
        assert joined.client.opened.peer == TestPeer(server)
        assert joined.server.opened.peer == TestPeer(client)
        assert joined.server.opened.chain == credentials(client).chain
        assert joined.client.opened.chain == credentials(server).chain

    def test_nobody_is_proven_in_discovery_and_the_verifier_is_not_asked(self) -> None:
        client = client_link(LinkClass.DISCOVERY, verify=refuse(CloseCode.UNTRUSTED))
        joined = Pair(End(client), End(server_link(verify=refuse(CloseCode.UNTRUSTED)))).run()
        for end in (joined.client, joined.server):
            assert end.events == [Opened(LinkClass.DISCOVERY, None, ())]

    def test_in_enrolment_the_server_is_proven_and_the_client_is_not(self) -> None:
        joined = pair(LinkClass.ENROLMENT).run()
        assert joined.client.opened.peer == TestPeer(SERVER)
        assert joined.server.opened == Opened(LinkClass.ENROLMENT, None, ())

    def test_discovery_reaches_a_server_of_an_unknown_root(self) -> None:
        client = client_link(LinkClass.DISCOVERY, context=discovery_context())
        alien = server_context(Authority("alien Root 0").issue(SERVER), [])
        joined = Pair(End(client), End(server_link(context=alien))).run()
        assert joined.client.opened.link_class is LinkClass.DISCOVERY

    @pytest.mark.parametrize("link_class", [None, *LinkClass])
    def test_the_tls_client_states_the_class_and_the_server_does_not(
        self, link_class: LinkClass | None
    ) -> None:
        with pytest.raises(LocalProtocolError):
            Link(
                contexts(CLIENT, server_side=link_class is not None),
                server_side=link_class is not None,
                local_role=CLIENT,
                verify=believe,
                link_class=link_class,
                handshake_deadline=DEADLINE,
                idle_timeout=IDLE,
            )

    @classes
    def test_a_context_that_verifies_nobody_is_for_discovery_and_no_other(
        self, link_class: LinkClass
    ) -> None:
        discovery = link_class is LinkClass.DISCOVERY
        wrong = contexts(CLIENT, server_side=False) if discovery else discovery_context()
        with pytest.raises(LocalProtocolError, match="verifies nobody"):
            client_link(link_class, context=wrong)
        with pytest.raises(LocalProtocolError, match="verifies nobody"):
            server_link(context=discovery_context())

    def test_a_server_without_a_verified_chain_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = client_link(LinkClass.MEMBER)
        monkeypatch.setattr(TLS, "verified_chain", lambda _tls: ())
        joined = Pair(End(client), End(server_link())).run()
        assert joined.client.closed.code is CloseCode.UNTRUSTED


class TestRefusing:
    @pytest.mark.req("E7")
    @pytest.mark.parametrize("code", [CloseCode.EXPIRED, CloseCode.CLOCK])
    @pytest.mark.parametrize("refuser", ["server", "client"])
    def test_the_peer_learns_the_code_and_our_time_and_not_the_reason(
        self, code: CloseCode, refuser: str
    ) -> None:
        verify = {"server": believe, "client": believe, refuser: refuse(code, "secret reason")}
        joined = Pair(
            End(client_link(LinkClass.MEMBER, verify=verify["client"])),
            End(server_link(verify=verify["server"])),
        ).run()
        ends = {"server": joined.server, "client": joined.client}
        ours = ends.pop(refuser).closed
        theirs = next(iter(ends.values())).closed
        assert (ours.code, ours.text, ours.by_peer) == (code, "secret reason", False)
        assert (theirs.code, theirs.text, theirs.by_peer) == (code, "", True)
        assert ours.time == theirs.time == 1_924_992_000
        assert theirs.retry_after == 2.5

    def test_a_refusal_says_whose_certificate_it_was(self) -> None:
        joined = Pair(
            End(client_link(LinkClass.MEMBER)),
            End(server_link(verify=refuse(CloseCode.REVOKED))),
        ).run()
        assert joined.server.events == [joined.server.closed]
        assert joined.server.closed.shown_chain == credentials(CLIENT).chain

    def test_an_open_link_keeps_no_chain_that_its_owner_was_told(self) -> None:
        joined = pair(LinkClass.MEMBER).run()
        assert joined.server.opened.chain == credentials(CLIENT).chain
        joined.server.events += joined.server.link.receive_eof(0.0)
        assert joined.server.closed.shown_chain == ()

    def test_what_a_refused_peer_sends_behind_its_handshake_is_not_read(self) -> None:
        link = client_link(LinkClass.MEMBER, verify=refuse(CloseCode.UNTRUSTED))
        server = TLS(contexts(SERVER, server_side=True), server_side=True)
        server.receive(link.data_to_send())
        assert link.receive_data(server.data_to_send(), 0.0) == []
        server.receive(link.data_to_send())
        # FINISHED of the TLS server and a frame come in one read.
        server.write(encode(Hello(link="enrolment")))
        events = link.receive_data(server.data_to_send(), 0.0)
        assert [type(event) for event in events] == [Closed]
        assert link.peer is None

    @pytest.mark.parametrize("name", ["alien Root 0", "server.test Root 0"])
    def test_a_client_of_an_unknown_root_is_refused_by_tls(self, name: str) -> None:
        thief = Authority(name).issue(CLIENT)
        context = client_context(thief, [root().der])
        joined = Pair(End(client_link(LinkClass.MEMBER, context=context)), End(server_link())).run()
        ours, theirs = joined.server.closed, joined.client.closed
        assert (ours.code, ours.by_peer) == (CloseCode.UNTRUSTED, False)
        assert ours.shown_chain == thief.chain[:1], "whose key it was"
        assert (theirs.code, theirs.by_peer) == (CloseCode.UNTRUSTED, True)
        assert "alert" in theirs.text

    def test_an_impostor_where_the_client_dials_is_refused_by_tls(self) -> None:
        context = client_context(credentials(CLIENT), [Authority().der])
        joined = Pair(End(client_link(LinkClass.MEMBER, context=context)), End(server_link())).run()
        assert joined.client.closed.code is CloseCode.UNTRUSTED
        assert joined.client.closed.shown_chain[:1] == credentials(SERVER).chain[:1]
        assert (joined.server.closed.code, joined.server.closed.by_peer) == (
            CloseCode.UNTRUSTED,
            True,
        )

    @pytest.mark.req("A12")
    @pytest.mark.parametrize("role", [SERVER, ZONE_SERVER])
    def test_a_role_that_has_no_link_with_ours_is_refused_even_if_verified(self, role: str) -> None:
        joined = pair(LinkClass.MEMBER, client=role).run()
        assert joined.server.closed.code is CloseCode.WRONG_ROLE
        assert joined.client.closed.code is CloseCode.WRONG_ROLE

    def test_nobody_enrols_at_a_client(self) -> None:
        joined = pair(LinkClass.ENROLMENT, server=CLIENT).run()
        assert joined.client.closed.code is CloseCode.WRONG_ROLE
        assert not any(isinstance(event, Opened) for event in joined.server.events)

    def test_a_stranger_that_ignores_that_is_refused_by_the_client(self) -> None:
        joined = Pair(
            End(client_link(LinkClass.ENROLMENT, verify=lambda _chain: TestPeer(SERVER))),
            End(server_link(CLIENT)),
        ).run()
        assert joined.server.closed.code is CloseCode.NOT_ALLOWED
        assert joined.client.closed.by_peer


class TestHello:
    def server_before_hello(self) -> Pair:
        joined = Pair(End(client_link(LinkClass.DISCOVERY)), End(server_link()))
        while joined.client.link.state is not State.OPEN:
            joined.carry(joined.client, joined.server)
            joined.carry(joined.server, joined.client)
        joined.client.link._queue.clear()  # the HELLO, which this peer does not say
        joined.server.events += joined.server.link.receive_data(
            joined.client.link._tls.data_to_send(), 0.0
        )
        assert joined.server.link.state is State.HELLO
        return joined

    @pytest.mark.parametrize(
        "message", [m for m in EXAMPLES if not isinstance(m, Hello | Close)], ids=lambda m: m.FRAME
    )
    def test_no_other_frame_comes_first(self, message: Message) -> None:
        joined = self.server_before_hello()
        events = joined.server.link.receive_data(inject(joined.client.link, encode(message)), 0.0)
        assert [type(event) for event in events] == [Closed]
        assert joined.server.link.state is State.CLOSED
        joined.run()
        assert joined.client.closed.code is CloseCode.NOT_ALLOWED

    def test_another_version_is_told_so(self) -> None:
        joined = self.server_before_hello()
        hello = encode(Hello(link="discovery", version=99))
        events = joined.server.link.receive_data(inject(joined.client.link, hello), 0.0)
        joined.run()
        assert isinstance(events[0], Closed)
        assert events[0].text == "protocol version 99, expected 1"
        assert joined.client.closed.code is CloseCode.WRONG_VERSION

    @pytest.mark.parametrize("link", ["member", "legacy", ""])
    def test_a_stranger_cannot_say_that_it_is_a_member(self, link: str) -> None:
        joined = self.server_before_hello()
        body = b"\x81\xa4link" + bytes([0xA0 + len(link)]) + link.encode()
        frame = encode_frame(FrameType.HELLO, body)
        events = joined.server.link.receive_data(inject(joined.client.link, frame), 0.0)
        assert [type(event) for event in events] == [Closed]

    def test_a_stranger_may_close(self) -> None:
        joined = self.server_before_hello()
        frame = encode(Close(code=CloseCode.GOING_AWAY))
        events = joined.server.link.receive_data(inject(joined.client.link, frame), 0.0)
        assert isinstance(events[0], Closed)
        assert events[0].code is CloseCode.GOING_AWAY

    @classes
    def test_hello_on_an_open_link_ends_it(self, link_class: LinkClass) -> None:
        joined = pair(link_class).run()
        frame = encode(Hello(link="enrolment"))
        joined.server.events += joined.server.link.receive_data(
            inject(joined.client.link, frame), 0.0
        )
        assert joined.server.closed.code is CloseCode.NOT_ALLOWED

    def test_the_deadline_runs_until_hello(self) -> None:
        joined = self.server_before_hello()
        assert joined.server.link.next_timeout() == DEADLINE
        events = joined.server.link.handle_timeout(DEADLINE)
        assert isinstance(events[0], Closed)
        assert events[0].text == "HELLO not done in time"


class TestAccess:
    @classes
    @pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: m.FRAME.name)
    def test_what_the_table_forbids_is_neither_sent_nor_received(
        self, link_class: LinkClass, message: Message
    ) -> None:
        joined = pair(link_class).run()
        asker = CLIENT if link_class is LinkClass.MEMBER else STRANGER
        permitted = type(message) in allowed(link_class, asker, SERVER)
        if permitted and not isinstance(message, Close):
            joined.client.link.send(message)
            joined.run()
            assert joined.server.messages == [message]
            return
        with pytest.raises(LocalProtocolError):
            joined.client.link.send(message)
        joined.server.events += joined.server.link.receive_data(
            inject(joined.client.link, encode(message)), 0.0
        )
        assert joined.server.messages == []
        assert joined.server.link.state is State.CLOSED
        if not isinstance(message, Close):
            assert joined.server.closed.code is CloseCode.NOT_ALLOWED

    @pytest.mark.parametrize("kind", [Relay, Report, Enrol, Register, NonceGet, Ack])
    def test_a_server_asks_nothing_of_a_client_that_is_not_its_to_ask(
        self, kind: type[Message]
    ) -> None:
        joined = member()
        message = next(example for example in EXAMPLES if isinstance(example, kind))
        frame = encode(message)
        joined.client.events += joined.client.link.receive_data(
            inject(joined.server.link, frame), 0.0
        )
        assert joined.client.closed.code is CloseCode.NOT_ALLOWED
        assert frame[4:5].hex() == f"{kind.FRAME:02x}"


class TestBrokenPeers:
    @pytest.mark.req("E4")
    @pytest.mark.parametrize("name", GARBAGE)
    def test_garbage_costs_this_link_and_what_came_before_is_delivered(self, name: str) -> None:
        garbage, code = GARBAGE[name]
        joined = member()
        good = Ping(call=1, id=1)
        data = inject(joined.client.link, encode(good) + garbage + encode(good))
        events = joined.server.link.receive_data(data, 0.0)
        assert [type(event) for event in events] == [Received, Closed]
        assert isinstance(events[-1], Closed)
        assert (events[-1].code, events[-1].by_peer) == (code, False)
        joined.run()
        assert joined.client.closed.code is code
        assert joined.client.closed.text == "", "the reason is ours"

    @pytest.mark.req("E4")
    @pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"hello\n", b"\x00" * 64])
    def test_plain_text_on_the_tls_port_is_named(self, data: bytes) -> None:
        for cut in (whole, bytewise):
            server = server_link()
            events = [e for piece in cut(data) for e in server.receive_data(piece, 0.0)]
            assert len(events) == 1
            assert isinstance(events[0], Closed)
            assert events[0].code is CloseCode.PROTOCOL_ERROR
            assert "plain text" in events[0].text
            # Its frames would keep the whole connection until the garbage collector comes.
            failure = server._tls.failure
            assert failure is not None
            assert failure.__traceback__ is None
            assert server.data_to_send() == b""
            assert server.next_timeout() is None

    def test_plain_text_from_a_server_is_named(self) -> None:
        client = client_link(LinkClass.MEMBER)
        assert client.data_to_send()
        (closed,) = client.receive_data(b"SSH-2.0-OpenSSH_9.2\r\n", 0.0)
        assert isinstance(closed, Closed)
        assert "plain text" in closed.text

    def test_plain_text_in_the_middle_of_tls_is_named(self) -> None:
        joined = member()
        data = inject(joined.client.link, encode(Ping(call=1, id=1)))
        events = joined.server.link.receive_data(data + b"GET /", 0.0)
        assert [type(event) for event in events] == [Received, Closed]

    @pytest.mark.req("E4")
    def test_a_peer_that_sends_and_never_shakes_hands_is_bounded(self) -> None:
        server = server_link(limits=Limits(handshake=2048))
        # A ClientHello that goes on and on, in records of which none is too large.
        hello = b"\x01" + (2**16).to_bytes(3)
        record = b"\x16\x03\x03" + (1024).to_bytes(2)
        events: list[Event] = []
        sent = 0
        while not events:
            events = server.receive_data(record + hello + bytes(1024 - len(hello)), 0.0)
            hello = b""
            sent += 1
        assert sent <= 3
        assert isinstance(events[0], Closed)
        assert events[0].code is CloseCode.PROTOCOL_ERROR

    @pytest.mark.req("E4")
    def test_a_flipped_bit_on_the_wire_ends_the_link(self) -> None:
        joined = member()
        data = bytearray(inject(joined.client.link, encode(Ping(call=1, id=1))))
        data[-1] ^= 1
        (closed,) = joined.server.link.receive_data(bytes(data), 0.0)
        assert isinstance(closed, Closed)
        assert closed.code is CloseCode.PROTOCOL_ERROR

    def test_a_record_without_plaintext_is_judged_at_once_and_does_not_lie_unread(self) -> None:
        joined = member()
        forged = b"\x17\x03\x03" + (24).to_bytes(2) + bytes(24)
        (closed,) = joined.server.link.receive_data(forged, 0.0)
        assert isinstance(closed, Closed)
        assert closed.code is CloseCode.PROTOCOL_ERROR

    def test_what_is_queued_when_tls_breaks_is_dropped(self) -> None:
        joined = member()
        joined.server.link.send(HeadNotice(call=1, head=b"h"))
        joined.server.events += joined.server.link.receive_data(b"plain", 0.0)
        assert joined.server.link.bytes_buffered == 0
        joined.server.link.data_to_send()
        assert joined.server.link.data_to_send() == b""


class TestEndings:
    @classes
    @pytest.mark.parametrize("cut", [whole, bytewise])
    def test_close_says_what_was_queued_and_then_the_code(
        self, link_class: LinkClass, cut: Cut
    ) -> None:
        joined = pair(link_class, cut=cut).run()
        joined.client.link.send(GET)
        joined.client.events += joined.client.link.close(
            CloseCode.RETRY_AFTER, "later", retry_after=3.0, now=1.0
        )
        joined.run()
        assert joined.server.messages == [GET]
        assert joined.server.closed.code is CloseCode.RETRY_AFTER
        assert joined.server.closed.text == "later"
        assert joined.server.closed.retry_after == 3.0
        assert joined.server.closed.by_peer
        assert not joined.client.closed.by_peer

    def test_everything_after_close_is_ignored_and_close_is_idempotent(self) -> None:
        joined = member()
        ping = encode(Ping(call=1, id=1))
        data = inject(joined.client.link, encode(Close(code=0)) + ping)
        events = joined.server.link.receive_data(data, 0.0)
        assert [type(event) for event in events] == [Closed]
        link = joined.server.link
        assert link.receive_data(inject(joined.client.link, ping), 0.0) == []
        assert link.receive_eof(0.0) == []
        assert link.handle_timeout(1e9) == []
        assert link.close(CloseCode.NORMAL, now=0.0) == []
        assert link.next_timeout() is None
        assert link.data_to_send() == b""
        with pytest.raises(LinkClosedError):
            link.send(Pong(id=1))

    def test_a_code_of_a_newer_version_is_an_ending_too(self) -> None:
        joined = member()
        data = inject(joined.client.link, encode(Close(code=4000)))
        (closed,) = joined.server.link.receive_data(data, 0.0)
        assert isinstance(closed, Closed)
        assert closed.code is CloseCode.INTERNAL
        assert "4000" in closed.text

    def test_the_text_of_a_close_is_cut_to_its_limit(self) -> None:
        joined = member()
        joined.client.events += joined.client.link.close(
            CloseCode.INTERNAL, "\ud800" + "x" * 5000, now=0.0
        )
        joined.run()
        assert joined.server.closed.text == "?" + "x" * 511

    @pytest.mark.parametrize(
        ("flights", "text"),
        [(0, "during the TLS handshake"), (1, "during the TLS handshake"), (9, "without a CLOSE")],
    )
    def test_the_end_of_the_stream_is_an_ending(self, flights: int, text: str) -> None:
        joined = pair(LinkClass.MEMBER)
        for _ in range(flights):
            joined.carry(joined.client, joined.server)
            joined.carry(joined.server, joined.client)
        events = joined.server.link.receive_eof(0.0)
        assert isinstance(events[0], Closed)
        assert (events[0].code, events[0].by_peer) == (CloseCode.LOST, True)
        assert text in events[0].text

    def test_close_notify_without_a_close_frame_is_the_end_of_the_stream(self) -> None:
        joined = member()
        raw = joined.client.link._tls._connection
        raw.shutdown()
        (closed,) = joined.server.link.receive_data(raw.bio_read(65536), 0.0)
        assert isinstance(closed, Closed)
        assert closed.code is CloseCode.LOST

    def test_a_link_that_is_closed_before_it_opens_has_nothing_to_say(self) -> None:
        server = server_link()
        (closed,) = server.close(CloseCode.GOING_AWAY, now=0.0)
        assert isinstance(closed, Closed)
        assert server.data_to_send() == b""


class TestTime:
    @pytest.mark.parametrize("now", [0.0, DEADLINE - 0.001])
    def test_early_is_harmless(self, now: float) -> None:
        server = server_link()
        assert server.handle_timeout(now) == []
        assert server.next_timeout() == DEADLINE

    def test_a_handshake_has_a_deadline(self) -> None:
        server = server_link()
        (closed,) = server.handle_timeout(DEADLINE)
        assert isinstance(closed, Closed)
        assert closed.code is CloseCode.HANDSHAKE_TIMEOUT
        assert closed.text == "TLS handshake not done in time"

    @pytest.mark.parametrize("end", ["client", "server"])
    def test_a_silent_peer_is_closed_at_the_idle_timeout_exactly(self, end: str) -> None:
        joined = member()
        link = {"client": joined.client, "server": joined.server}[end].link
        assert link.next_timeout() == IDLE
        assert link.handle_timeout(IDLE - 0.001) == []
        (closed,) = link.handle_timeout(IDLE)
        assert isinstance(closed, Closed)
        assert closed.code is CloseCode.IDLE_TIMEOUT

    def test_a_frame_and_only_a_whole_frame_starts_the_idle_time_again(self) -> None:
        joined = member()
        data = inject(joined.client.link, encode(Ping(call=1, id=1)))
        joined.server.link.receive_data(data[:-1], 20.0)
        assert joined.server.link.next_timeout() == IDLE
        joined.server.link.receive_data(data[-1:], 30.0)
        assert joined.server.link.next_timeout() == 30.0 + IDLE
        joined.server.link.send(Pong(call=1, id=1))
        assert joined.server.link.next_timeout() == 30.0 + IDLE, "our own words are no sign of life"


class TestOurOwnMistakes:
    def test_nothing_is_sent_before_the_link_is_open(self) -> None:
        with pytest.raises(LocalProtocolError, match="not open yet"):
            client_link(LinkClass.MEMBER).send(GET)

    def test_the_binding_needs_a_handshake(self) -> None:
        with pytest.raises(LocalProtocolError):
            client_link(LinkClass.MEMBER).binding()

    def test_close_is_a_method_and_no_message(self) -> None:
        with pytest.raises(LocalProtocolError, match="CLOSE may not be sent"):
            member().client.link.send(Close(code=0))

    def test_a_message_beyond_its_limits_leaves_the_link_as_it_was(self) -> None:
        joined = member()
        with pytest.raises(LocalProtocolError):
            joined.client.link.send(Ping(call=1, id=-1))
        joined.client.link.send(Ping(call=1, id=1))
        joined.run()
        assert joined.server.messages == [Ping(call=1, id=1)]

    def test_what_is_buffered_is_counted_until_it_is_taken(self) -> None:
        joined = member()
        assert joined.client.link.bytes_buffered == 0
        joined.client.link.send(GET)
        assert joined.client.link.bytes_buffered == len(encode(GET))
        joined.client.link.data_to_send()
        assert joined.client.link.bytes_buffered == 0


def test_the_verifier_is_asked_once_with_the_chain_that_openssl_verified() -> None:
    asked: list[tuple[bytes, ...]] = []

    def verify(chain: tuple[bytes, ...]) -> TestPeer:
        asked.append(chain)
        return TestPeer(CLIENT)

    joined = Pair(End(client_link(LinkClass.MEMBER)), End(server_link(verify=verify))).run()
    joined.client.link.send(GET)
    joined.run()
    assert asked == [credentials(CLIENT).chain]
    assert isinstance(joined.server.link.peer, TestPeer)

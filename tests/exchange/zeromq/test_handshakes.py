"""Who is let in, and who a peer is: keys decide, and nothing else. Refusals are told."""

from __future__ import annotations

import json
import queue
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing

import pytest
import zmq

from sti.errors import ClosedError, DeadlineError, InputError, PeerError, PeerLostError
from sti.exchange.interface import FOUND, LOST
from sti.exchange.zeromq import dialed, listener
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys
from sti.exchange.zeromq.wire import Hello, Refusal
from tests.exchange.members import keys_of, soon
from tests.exchange.zeromq.raw import RawPeer
from tests.support.processes import until

LOCAL = "127.0.0.1:0"
Told = queue.SimpleQueue[str]


@pytest.fixture
def closed() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def told() -> Told:
    return queue.SimpleQueue()


def member(
    closed: ExitStack,
    name: str,
    *,
    listen: str | None = None,
    peers: Mapping[str, str | None] | None = None,
    keys: Keys | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> ZmqExchange:
    given = {peer: str(address) for peer, address in (peers or {}).items()}
    exchange = ZmqExchange(name, listen=listen, peers=given, keys=keys, notify=notify, silence_s=10)
    closed.callback(exchange.close)
    return exchange


def stranger_of(keys: Mapping[str, Keys], name: str) -> Keys:
    """Keys of somebody who knows everybody's public key, and calls himself the same."""
    public, secret = zmq.curve_keypair()
    return Keys(name, {**keys["a"].public, name: public}, secret)


def is_found(exchange: ZmqExchange, peer: str) -> bool:
    """Whether a peer that may still refuse this member was found by now."""
    try:
        return exchange.receive(key=FOUND, peer=peer, deadline=time.monotonic()).peer == peer
    except PeerError:
        return False


def nobody_was_found(exchange: ZmqExchange) -> None:
    with pytest.raises(DeadlineError):
        exchange.receive(deadline=time.monotonic())


def test_a_device_with_an_unknown_key_is_refused_and_both_sides_are_told(
    closed: ExitStack, told: Told
) -> None:
    keys = keys_of("ab")
    a = member(closed, "a", listen=LOCAL, keys=keys["a"], notify=told.put)
    b = member(closed, "b", peers={"a": a.address}, keys=stranger_of(keys, "b"))
    with pytest.raises(PeerError, match=r"a: it does not know the key.*sti devices init"):
        b.receive(key=FOUND, peer="a", deadline=soon())
    with pytest.raises(PeerError, match="does not know the key"):
        b.send("a", "k")
    assert "127.0.0.1 was refused: its key is not known here" in told.get(timeout=30)
    nobody_was_found(a)


@pytest.mark.parametrize("with_keys", ["a", "b"])
def test_devices_of_which_one_has_no_keys_refuse_one_another(
    closed: ExitStack, told: Told, with_keys: str
) -> None:
    keys = {with_keys: keys_of("ab")[with_keys]}
    a = member(closed, "a", listen=LOCAL, keys=keys.get("a"), notify=told.put)
    b = member(closed, "b", peers={"a": a.address}, keys=keys.get("b"), notify=told.put)
    with pytest.raises(PeerError, match="only one of the two has keys"):
        b.receive(key=FOUND, peer="a", deadline=soon())
    both = sorted(told.get(timeout=30) for _ in range(2))
    assert both[0].startswith("a: the handshake failed: only one of the two has keys")
    assert both[1].startswith(f"at {a.address} something connected that failed the handshake")
    nobody_was_found(a)


def test_a_server_that_has_another_key_than_it_should_is_refused(
    closed: ExitStack, told: Told
) -> None:
    keys = keys_of("ab")
    # Somebody who sits at the address of a, and would let everybody in.
    false = member(closed, "a", listen=LOCAL, keys=stranger_of(keys, "a"))
    b = member(closed, "b", peers={"a": false.address}, keys=keys["b"], notify=told.put)
    with pytest.raises(PeerError, match="it has another key than it should"):
        b.receive(key=FOUND, peer="a", deadline=soon())
    with pytest.raises(PeerError):
        b.send("a", "k", {"secret": 1})
    assert "a: the handshake failed" in told.get(timeout=30)
    nobody_was_found(false)


def test_a_device_is_who_its_key_says_and_not_who_it_says(closed: ExitStack, told: Told) -> None:
    keys = keys_of("abc")
    a = member(closed, "a", listen=LOCAL, keys=keys["a"], notify=told.put)
    raw = closed.enter_context(RawPeer(a.address, keys["b"], server="a"))
    raw.send(Hello("c").frame(), *raw.message("k"))
    assert "device calls itself 'c' and has the key of b; it was refused" in told.get(timeout=30)
    refusal = raw.receive()
    assert refusal[:1] == b"R" and json.loads(refusal[1:])["gives_way"] is True
    nobody_was_found(a)
    honest = closed.enter_context(RawPeer(a.address, keys["b"], server="a", route=b"c"))
    honest.send(Hello("b").frame(), *honest.message("k"))
    assert a.receive(key="k", deadline=soon()).peer == "b"
    assert a.receive(deadline=soon())[:2] == ("b", FOUND)
    nobody_was_found(a)


def test_messages_before_a_hello_are_dropped(closed: ExitStack, told: Told) -> None:
    keys = keys_of("ab")
    a = member(closed, "a", listen=LOCAL, keys=keys["a"], notify=told.put)
    raw = closed.enter_context(RawPeer(a.address, keys["b"], server="a"))
    raw.send(*raw.message("early"), Hello("b").frame(), *raw.message("late"))
    assert a.receive(deadline=soon())[:2] == ("b", FOUND)
    assert a.receive(deadline=soon()).key == "late"
    assert "someone sent what was dropped: something else than a hello" in told.get(timeout=30)


@pytest.mark.parametrize("name", ["a", "", "../a", "b\n", "x" * 100])
def test_names_that_no_peer_can_have_are_refused(closed: ExitStack, told: Told, name: str) -> None:
    a = member(closed, "a", listen=LOCAL, notify=told.put)
    raw = closed.enter_context(RawPeer(a.address))
    raw.send(Hello(name).frame())
    assert raw.receive()[:1] == b"R"
    line = told.get(timeout=30)
    assert line.endswith("it was refused") and line.isprintable()
    nobody_was_found(a)


def test_so_many_names_may_be_claimed_and_no_more(
    closed: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MOST_PEERS", 2)
    a = member(closed, "a", listen=LOCAL)
    for name in "bc":
        raw = closed.enter_context(RawPeer(a.address))
        raw.send(Hello(name).frame())
        assert raw.receive()[:1] == b"H"
    raw = closed.enter_context(RawPeer(a.address))
    raw.send(Hello("d").frame())
    assert b"2 devices have connected already" in raw.receive()


def test_another_device_at_an_address_is_not_taken_for_the_one_that_was_meant(
    closed: ExitStack,
) -> None:
    a = member(closed, "a", listen=LOCAL)
    b = member(closed, "b", peers={"c": a.address})
    with pytest.raises(PeerError, match=r"c: at 127.0.0.1:\d+ answers 'a', not c"):
        b.receive(key=FOUND, peer="c", deadline=soon())


def test_a_newer_connection_under_a_name_replaces_the_older_one_until_it_ends(
    closed: ExitStack, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialed, "GIVES_WAY_S", 0.02)
    a = member(closed, "a", listen=LOCAL, notify=told.put)
    older = member(closed, "b", peers={"a": a.address})
    older.receive(key=FOUND, deadline=soon())
    a.receive(key=FOUND, peer="b", deadline=soon())
    newer = member(closed, "b", peers={"a": a.address})
    newer.receive(key=FOUND, deadline=soon())
    assert "it connected anew; two" in a.receive(key=LOST, deadline=soon()).head["why"]
    a.receive(key=FOUND, peer="b", deadline=soon())
    assert "b connected anew: it was started again, or two devices" in told.get(timeout=30)
    with pytest.raises(PeerLostError, match="refuses this device: it connected anew"):
        older.receive(key="k", peer="a", deadline=soon())
    with pytest.raises(PeerError, match="refuses this device"):
        older.receive(key=FOUND, peer="a", deadline=soon())
    with pytest.raises(DeadlineError):  # it does not fight for the name, however often it asks
        a.receive(key=LOST, peer="b", deadline=time.monotonic() + 0.5)
    a.send("b", "k")
    assert newer.receive(key="k", deadline=soon()).peer == "a"
    newer.close()
    a.receive(key=LOST, peer="b", deadline=soon())
    until(lambda: is_found(older, "a"))
    a.receive(key=FOUND, peer="b", deadline=soon())
    older.send("a", "k")
    assert a.receive(key="k", deadline=soon()).peer == "b"
    assert told.empty()


def test_whoever_gives_way_is_let_in_where_nobody_has_the_name(closed: ExitStack) -> None:
    a = member(closed, "a", listen=LOCAL)
    for _ in range(2):
        with RawPeer(a.address) as first:
            first.send(Hello("b", gives_way=True).frame())
            assert first.receive()[:1] == b"H"
            a.receive(key=FOUND, peer="b", deadline=soon())
            second = closed.enter_context(RawPeer(a.address))
            second.send(Hello("b", gives_way=True).frame())
            refusal = Refusal.read(memoryview(second.receive())[1:])
            assert refusal.gives_way and "connected anew" in refusal.why
            first.send(*first.message("k"))
            a.receive(key="k", peer="b", deadline=soon())
        a.receive(key=LOST, peer="b", deadline=soon())


def test_a_member_gives_way_until_it_is_let_in(
    closed: ExitStack, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialed, "GIVES_WAY_S", 0.02)
    a = member(closed, "a", listen=LOCAL)
    older = member(closed, "b", peers={"a": a.address}, notify=told.put)
    older.receive(key=FOUND, deadline=soon())
    newer = member(closed, "b", peers={"a": a.address})
    newer.receive(key=FOUND, deadline=soon())
    assert "it connected anew" in told.get(timeout=30)
    for _ in range(5):  # as a worker does that is told again to reach another one
        older.connect("a", str(a.address))
        with pytest.raises(DeadlineError):
            newer.receive(key=LOST, deadline=time.monotonic() + 0.1)
    address = a.address
    a.close()
    newer.receive(key=LOST, deadline=soon())
    newer.close()
    member(closed, "a", listen=address)
    until(lambda: is_found(older, "a"))


def test_peers_are_connected_and_disconnected_later(closed: ExitStack) -> None:
    a, b = (member(closed, name, listen=LOCAL) for name in "ab")
    a.connect("b", str(b.address))
    a.receive(key=FOUND, peer="b", deadline=soon())
    b.receive(key=FOUND, peer="a", deadline=soon())
    a.disconnect("b")
    assert a.receive(key=LOST, deadline=soon()).head == {"why": "it was disconnected here"}
    assert b.receive(key=LOST, deadline=soon()).peer == "a"
    a.disconnect("b")
    with pytest.raises(PeerError):
        a.send("b", "k")
    a.connect("b", str(b.address))
    a.receive(key=FOUND, peer="b", deadline=soon())
    b.receive(key=FOUND, peer="a", deadline=soon())
    # Connected in both directions, it is lost with either, and still there by the other.
    b.connect("a", str(a.address))
    a.disconnect("b")
    for exchange, peer in ((a, "b"), (b, "a")):
        exchange.receive(key=LOST, peer=peer, deadline=soon())
        exchange.receive(key=FOUND, peer=peer, deadline=soon())
    a.send("b", "k")
    assert b.receive(key="k", peer="a", deadline=soon()).peer == "a"


def test_a_peer_that_nobody_answers_for_is_told_and_found_when_it_comes(
    closed: ExitStack, told: Told
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
    b = member(closed, "b", peers={"a": address}, notify=told.put)
    assert told.get(timeout=30) == f"a: nothing answers at {address}; it is tried again"
    with pytest.raises(DeadlineError, match=f"from a: nothing answers at {address}"):
        b.receive(key=FOUND, peer="a", deadline=time.monotonic())
    with pytest.raises(PeerError, match=f"nothing answers at {address}"):
        b.send("a", "k")
    member(closed, "a", listen=address)
    assert b.receive(key=FOUND, deadline=soon()).peer == "a"


def test_addresses_beyond_the_machine_need_keys() -> None:
    for options in ({"listen": "0.0.0.0:0"}, {"peers": {"b": "192.0.2.1:7000"}}):
        with pytest.raises(InputError, match=r"a (listens|connects to b) at .*\(--keys DIR\)"):
            ZmqExchange("a", **options)  # type: ignore[arg-type]
    with closing(ZmqExchange("a", listen="0.0.0.0:0", keys=keys_of("a")["a"])) as exchange:
        assert str(exchange.address).startswith("0.0.0.0:")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "a b"}, "no name of a device"),
        ({"name": "b"}, "b: the keys are those of a"),
        ({"listen": "7000"}, "write HOST:PORT"),
        ({"listen": "127.0.0.1:70000"}, "write HOST:PORT"),
        ({"listen": "::1:7000"}, "write HOST:PORT"),
        ({"listen": "192.0.2.1:7000"}, "cannot be listened at"),
        ({"peers": {"a": "127.0.0.1:1"}}, "that name itself"),
        ({"peers": {"z": "127.0.0.1:1"}}, "z: has no key here.*sti devices init --keys DIR z"),
        ({"silence_s": 0.01}, "silence_s"),
        ({"silence_s": float("nan")}, "silence_s"),
    ],
    ids=range(10),
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, object], said: str) -> None:
    given = {"name": "a", "keys": keys_of("ab")["a"], **options}
    with pytest.raises(InputError, match=said):
        ZmqExchange(**given)  # type: ignore[arg-type]


def test_a_host_that_is_not_known_is_another_device_s_fault() -> None:
    with pytest.raises(PeerError, match=r"cannot be looked up.*numeric address"):
        ZmqExchange("a", keys=keys_of("ab")["a"], peers={"b": "no-such-host.invalid:1"})


@pytest.mark.parametrize("listen", ["[::1]:0", "localhost:0"])
def test_addresses_may_be_ipv6_or_names(closed: ExitStack, listen: str) -> None:
    if listen.startswith("[") and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    a = member(closed, "a", listen=listen)
    b = member(closed, "b", peers={"a": str(a.address).replace("127.0.0.1", "localhost")})
    assert b.receive(key=FOUND, deadline=soon()).peer == "a"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_peer_that_says_no_hello_is_told_of(closed: ExitStack, told: Told) -> None:
    context = closed.enter_context(zmq.Context())
    with context.socket(zmq.ROUTER) as silent:
        silent.setsockopt(zmq.LINGER, 0)
        port = silent.bind_to_random_port("tcp://127.0.0.1")
        member(closed, "b", peers={"a": f"127.0.0.1:{port}"}, notify=told.put)
        assert silent.recv_multipart()[1] == Hello("b").frame()
    assert "ended the connection before it said hello; it is tried" in told.get(timeout=30)


def test_an_address_that_is_taken_is_named(closed: ExitStack) -> None:
    a = member(closed, "a", listen=LOCAL)
    with pytest.raises(InputError, match=f"{a.address}: cannot be listened at: .*in use"):
        ZmqExchange("b", listen=a.address)


def test_what_is_connected_later_is_checked_as_well(closed: ExitStack) -> None:
    a = member(closed, "a")
    for peer, address in (("b", "192.0.2.1:1"), ("a", "127.0.0.1:1"), ("b", "b"), ("", "b:1")):
        with pytest.raises(InputError):
            a.connect(peer, address)
    a.close()
    with pytest.raises(ClosedError):
        a.connect("b", "127.0.0.1:1")
    with pytest.raises(ClosedError):
        a.disconnect("b")


def test_what_notify_raises_ends_the_exchange_and_is_named(
    closed: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: queue.SimpleQueue[object] = queue.SimpleQueue()
    monkeypatch.setattr("threading.excepthook", lambda args: raised.put(args.exc_value))

    def notify(line: str) -> None:
        raise RuntimeError(line)

    a = member(closed, "a", listen=LOCAL, notify=notify)
    raw = closed.enter_context(RawPeer(a.address))
    raw.send(b"?")
    with pytest.raises(ClosedError, match=r"a: this exchange was closed: its thread failed: Runt"):
        a.receive(deadline=soon())
    assert isinstance(raised.get(timeout=30), RuntimeError)

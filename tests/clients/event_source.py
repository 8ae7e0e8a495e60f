"""Server-sent events as a browser takes them: the EventSource of Chromium, on a page of another origin than the server,
over a network that gets cut. It comes back by itself, and has to hear what it missed, once and in order.

Black box: BASE_URL and SECRET say which server, SERVER_BINARY which one is started to be killed.
"""
import pathlib
import signal
import threading
import uuid

import pytest

from backend import unique
from browser import Application, Browser, Network, OwnServer, PushServer, eventually

SETTINGS = {"store_history": True, "replay_size": 1000}
CONNECTING, OPEN, CLOSED = 0, 1, 2


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def application():
    page = (pathlib.Path(__file__).parent / "page.html").read_text()
    application = Application({"/": page})
    yield application
    application.close()


@pytest.fixture
def page(browser, application):
    page = browser.open(f"{application.url}/")
    yield page
    page.close()


def network_to(server):
    network = Network(server.url)
    yield network
    network.close()


@pytest.fixture
def server():
    return PushServer()


@pytest.fixture
def network(server):
    yield from network_to(server)


@pytest.fixture
def own_server():
    server = OwnServer()
    yield server
    server.close()


@pytest.fixture
def own_network(own_server):
    yield from network_to(own_server)


def connect(server, room, user=None):
    asked = {"username": user or unique("ann"), "channels": [room], "channel_configs": {room: SETTINGS}}
    return server.ask("/connect", asked)


def brief(frame):
    """What matters of a frame in these tests."""
    if frame["type"] == "replay":
        return ("replay", frame["count"], frame["gaps"])
    said = frame["message"]["text"] if "message" in frame else frame["uuid"]
    when = "missed" if frame.get("catchup") else "live"
    return (when, frame["type"], said)


def texts(briefs):
    return [said for kind, _, said in briefs if kind != "replay"]


def missed(*texts):
    return [("missed", "message", text) for text in texts]


def live(*texts):
    return [("live", "message", text) for text in texts]


class Listener:
    """What a page hears on one connection, in the order in which it hears that."""

    def __init__(self, page, network, connection, since=None):
        self.page = page
        self.conn_id = connection["conn_id"]
        self.events = []
        self.frames = []
        since = connection["cursor"] if since is None else since
        page.call("listenBySse", f"{network.url}/sse?conn_id={self.conn_id}&since={since}")

    def look(self):
        """Takes what is new; gives how the stream went: what happened to it, with the readyState then."""
        new = self.page.run(f"heard.sse.slice({len(self.events)})")
        for event in new:
            frames = event.get("frames", [])
            # An id is that of the last frame that has a cursor.
            cursors = [frame["cursor"] for frame in frames if "cursor" in frame]
            assert not cursors or event["id"] == cursors[-1]
            self.frames += [frame for frame in frames if frame["type"] != "cursor"]
        self.events += new
        return [event for event in self.events if "frames" not in event]

    def take(self, count):
        """So many frames, in brief, when they are there."""
        def is_heard():
            self.look()
            return len(self.frames) >= count

        eventually(is_heard, lambda: f"hearing {count} frames, not {[brief(frame) for frame in self.frames]},")
        taken, self.frames = self.frames[:count], self.frames[count:]
        return [brief(frame) for frame in taken]

    def wait_for_states(self, *wanted):
        """Waits until the stream has gone through these, and nothing else."""
        wanted = [dict([state]) for state in wanted]
        eventually(lambda: len(self.look()) >= len(wanted), lambda: f"{wanted}, but {self.look()},")
        assert self.look() == wanted


def errors_of(listener):
    return sum("error" in event for event in listener.look())


def test_what_was_missed_comes_first_then_the_marker_then_what_is_live(page, network, server):
    room = unique("room")
    connection = connect(server, room)
    uuids = server.say(room, "one", "tow", "three", "never mind")
    server.edit(room, uuids[1], "two")
    server.delete(room, uuids[3])
    listener = Listener(page, network, connection)
    assert listener.take(4) == [*missed("one", "two", "three"), ("replay", 3, [])]
    server.say(room, "four")
    server.edit(room, uuids[0], "One")
    server.delete(room, uuids[2])
    edited, deleted = ("live", "message:edit", "One"), ("live", "message:delete", uuids[2])
    assert listener.take(3) == [*live("four"), edited, deleted]
    listener.wait_for_states(("open", OPEN))


def miss_something(server, room, about, keep, drop):
    """Says, edits and deletes something that nobody hears now; gives what is told later."""
    server.say(room, f"{about} 1")
    server.edit(room, keep, f"{about}: not so hasty")
    written, taken_back = server.say(room, f"{about} 2", f"{about} 3")
    server.edit(room, keep, f"{about}: kept")
    server.delete(room, drop)
    server.edit(room, written, f"{about} 2, edited")
    server.delete(room, taken_back)
    server.say(room, f"{about} 4")
    edited, deleted = ("missed", "message:edit", f"{about}: kept"), ("missed", "message:delete", drop)
    # Who was there when it was said is told of a deletion; who was not hears neither.
    return [*missed(f"{about} 1", f"{about} 2, edited"), edited, deleted, *missed(f"{about} 4"), ("replay", 5, [])]


def test_what_was_missed_while_the_network_was_cut_comes_once(page, network, server):
    room = unique("room")
    listener = Listener(page, network, connect(server, room))
    assert listener.take(1) == [("replay", 0, [])]
    keep, *others = server.say(room, *"abcd")
    assert listener.take(4) == live(*"abcd")
    for cut, drop in enumerate(others):
        errors = errors_of(listener)
        with network.down():
            eventually(lambda: errors_of(listener) > errors, "hearing of the cut")
            told = miss_something(server, room, f"cut {cut}", keep, drop)
        assert listener.take(len(told)) == told
        server.say(room, f"after cut {cut}")
        assert listener.take(1) == live(f"after cut {cut}")


def test_what_is_said_around_cuts_comes_once(page, network, server):
    room = unique("room")
    listener = Listener(page, network, connect(server, room))
    assert listener.take(1) == [("replay", 0, [])]
    said, is_over = [], threading.Event()

    def talk():
        while not is_over.wait(0.005):
            said.append(f"message {len(said)}")
            server.say(room, said[-1])

    talking = threading.Thread(target=talk)
    talking.start()
    heard = []
    try:
        for _ in range(4):
            heard += listener.take(20)
            opened = network.opened
            network.cut()
            eventually(lambda: network.opened > opened, "coming back")
    finally:
        is_over.set()
        talking.join()
    while texts(heard)[-1] != said[-1]:
        heard += listener.take(1)
    assert texts(heard) == said
    assert {"missed", "live"} < {when for when, *_ in heard}
    assert all(gaps == [] for kind, _, gaps in heard if kind == "replay")


def test_a_long_replay_goes_on_where_it_was_cut(page, network, server):
    room = unique("room")
    connection = connect(server, room)
    said = [f"{number} {'x' * 1000}" for number in range(500)]
    server.say(room, *said)
    event = rb".*?\nid: [^\n]*\ndata: [^\n]*\n\n"
    network.cut_after = [
        rb".{70000}",  # before the first event is whole
        event + rb".{70000}",  # in the middle of the second one
        event + rb".*?\nid: [^\n]*\n",  # behind an id whose data never come
        event + rb".*?\nid: [^\n]*\ndata: [^\n]*\n",  # before the empty line that ends an event
    ]
    listener = Listener(page, network, connection)
    eventually(lambda: network.opened >= 3, "coming back twice")
    server.say(room, "said meanwhile")
    heard = listener.take(502)
    assert texts(heard) == [*said, "said meanwhile"]
    assert network.cuts == 4
    [(_, count, gaps)] = [frame for frame in heard if frame[0] == "replay"]
    assert gaps == [] and 0 < count < 300, "the last part only"
    assert listener.frames == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_missed_over_a_restart_of_the_server_comes_once(page, own_network, own_server, how):
    room = unique("room")
    listener = Listener(page, own_network, connect(own_server, room))
    assert listener.take(1) == [("replay", 0, [])]
    keep, first, second = own_server.say(room, *"abc")
    assert listener.take(3) == live(*"abc")
    # The server goes away under the page.
    own_server.stop(how)
    own_server.start()
    eventually(lambda: own_network.opened >= 2, "coming back")
    assert listener.take(1) == [("replay", 0, [])]
    own_server.say(room, "after a restart")
    assert listener.take(1) == live("after a restart")
    # It does so between two things that the page misses.
    with own_network.down():
        told = miss_something(own_server, room, "before", keep, first)[:-1]
        own_server.stop(how)
        own_server.start()
        told += miss_something(own_server, room, "after", keep, second)[:-1]
    told.remove(("missed", "message:edit", "before: kept"))  # it was edited once more
    told.append(("replay", len(told), []))
    assert listener.take(len(told)) == told


def test_an_unknown_id_ends_it(page, network):
    listener = Listener(page, network, {"conn_id": str(uuid.uuid4()), "cursor": ""})
    listener.wait_for_states(("error", CLOSED))
    assert network.opened == 1


def test_an_id_that_was_disconnected_ends_it(page, network, server):
    listener = Listener(page, network, connect(server, unique("room")))
    assert listener.take(1) == [("replay", 0, [])]
    assert page.call("disconnect", f"{server.url}/disconnect", listener.conn_id) is True
    listener.wait_for_states(("open", OPEN), ("error", CONNECTING), ("error", CLOSED))


def test_all_ways_of_listening_give_the_same(page, server):
    room, gossip, ann, bob = unique("room"), unique("gossip"), unique("ann"), unique("bob")
    server.ask("/channel_config", {room: {**SETTINGS, "notify_presence": True}, gossip: {}})
    asked = {"username": ann, "channels": [room, gossip]}
    [since, *_], ids = zip(*((answer["cursor"], answer["conn_id"]) for answer in (
        server.ask("/connect", asked) for _ in range(3)
    )))

    def whisper(text):
        server.ask("/message", [{"user": bob, "pm_users": [ann], "message": {"text": text}}])

    one, two, three = server.say(room, "one", "two", "three \u2028 \u00e9 \U0001f600")
    whisper("psst")
    server.say(gossip, "did you know?")
    server.edit(room, one, "One")
    server.delete(room, two)
    connect(server, room, bob)

    sse, ws, poll = ids
    page.call("listenBySse", f"{server.url}/sse?conn_id={sse}&since={since}")
    page.call("listenByWebSocket", f"{server.url.replace('http', 'ws', 1)}/ws?conn_id={ws}&since={since}")
    page.run(f"void listenByPolls('{server.url}/listen?conn_id={poll}', '{since}')")

    def heard():
        events = page.run("heard")
        frames = {way: [frame for event in events[way] for frame in event.get("frames", [])] for way in events}
        return {way: [frame for frame in frames[way] if frame["type"] != "cursor"] for way in frames}

    def are_heard(count):
        return all(sum(frame["type"] != "replay" for frame in frames) >= count for frames in heard().values())

    eventually(lambda: are_heard(5) and all(map(markers, heard().values())), lambda: f"5 frames each, but {heard()},")
    found = heard()
    assert found["sse"] == found["ws"] == found["poll"]
    kinds = [(frame["type"], frame.get("catchup"), frame.get("channel")) for frame in found["sse"]]
    assert kinds == [
        ("message", True, room), ("message", True, room), ("message", True, None),
        ("message", True, gossip), ("presence", True, room), ("replay", None, None),
    ]
    for number, happens in enumerate([
        lambda: server.say(room, "four"),
        lambda: server.edit(room, three, "Three"),
        lambda: server.delete(room, one),
        lambda: whisper("pssst"),
        lambda: server.say(gossip, "now you know"),
    ]):
        happens()
        eventually(lambda: are_heard(6 + number), lambda: f"{6 + number} frames each, but {heard()},")
    found = heard()
    assert found["sse"] == found["ws"]
    # A poll has a marker in each answer, and what happens between two polls is caught up.
    assert [bare(frame) for frame in found["poll"] if frame["type"] != "replay"] == [
        bare(frame) for frame in found["ws"] if frame["type"] != "replay"
    ]


def markers(frames):
    return [frame for frame in frames if frame["type"] == "replay"]


def bare(frame):
    return {key: value for key, value in frame.items() if key != "catchup"}

"""The examples of docs/replay.md, run in Chromium as they stand there, over cuts and restarts."""
import re
import signal

import pytest
import requests

from backend import unique
from browser import PATIENCE, REPOSITORY, Application, Browser, Network, OwnServer, eventually

SETTINGS = {"store_history": True, "history_size": 100, "replay_size": 250}
# What docs/replay.md leaves to its reader. The application passes on what it is asked for by POST /push.
YOURS = """
const drawn = [], gapsShown = [], taken = [];
const draw = () => drawn.push([...messages.values()].map(({ message }) => message.text));
const showGaps = (gaps) => gapsShown.push(...gaps);
Math.random = () => 0; // the shortest back-off
"""
# Notes down what is taken, besides what the page does with it.
WATCH = """
const original = take;
take = (event) => { taken.push(event); return original(event); };
"""
EVENT_SOURCE = """
let source, connId, begun = 0;
const beginAnew = () => { source.close(); begun += 1; };
async function start() { connId = await getConnection(); open(); }
"""


def block(name):
    """A block of code of the page."""
    page = (REPOSITORY / "docs" / "replay.md").read_text()
    found = re.search(rf"<!-- {name}: tests/clients runs this block -->\n```js\n(.*?)```", page, re.DOTALL)
    assert found, f"docs/replay.md has no block of js after <!-- {name}: tests/clients runs this block -->"
    return found[1]


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


class World:
    """The server, the network that leads to it, the application, and its page with a script of the documentation."""

    def __init__(self, browser, **settings):
        self.browser = browser
        self.room, self.user = unique("room"), unique("ann")
        self.server = OwnServer(**settings)
        self.server.ask("/channel_config", {self.room: SETTINGS})
        self.network = Network(self.server.url)
        self.ids = []
        self.page = self.application = None

    def show(self, script):
        script = script.replace("wss://push.example.com", self.network.url.replace("http", "ws"))
        script = script.replace("https://push.example.com", self.network.url)
        scripts = "".join(f"<script>{text}</script>" for text in (YOURS, script, WATCH))
        self.application = Application({"/": f"<!doctype html><meta charset=utf-8>{scripts}"}, {"/push": self.connect})
        self.page = self.browser.open(f"{self.application.url}/")

    def connect(self, _):
        answer = self.server.ask("/connect", {"username": self.user, "channels": [self.room]})
        self.ids.append(answer["conn_id"])
        history = answer["channels_info"]["channels"][self.room]["history"]
        return {"conn_id": answer["conn_id"], "cursor": answer["cursor"], "history": history}

    def say(self, *texts):
        return self.server.say(self.room, *texts)

    def wait_until_shown(self, *texts):
        eventually(lambda: self.shown() == [*texts], lambda: f"the page showing {texts} instead of {self.shown()}")

    def shown(self):
        return self.page.run("drawn.at(-1)")

    def taken(self):
        """The logged events that the page took, in order: each has a text or, if it is a deletion, a uuid."""
        events = self.page.run("taken.filter(({ type }) => type.startsWith('message'))")
        return [event["message"]["text"] if "message" in event else event["uuid"] for event in events]

    def close(self):
        if self.page:
            self.page.close()
            self.application.close()
        self.network.close()
        self.server.close()


@pytest.fixture
def world(browser):
    world = World(browser, gc_conns_after=60)
    yield world
    world.close()


@pytest.fixture
def hasty_world(browser):
    world = World(browser, gc_conns_after=1)
    yield world
    world.close()


def test_the_websocket_page_misses_nothing(world):
    one, two = world.say("one", "two")
    world.show(block("websocket"))
    world.wait_until_shown("one", "two")
    world.say("three")
    world.wait_until_shown("one", "two", "three")
    with world.network.down():
        world.say("four")
        world.server.edit(world.room, one, "One")
        world.server.delete(world.room, two)
    world.wait_until_shown("One", "three", "four")
    world.server.stop(signal.SIGKILL)
    world.server.start()
    world.say("five")
    world.wait_until_shown("One", "three", "four", "five")
    assert world.taken() == ["three", "four", "One", two, "five"], "once each"
    assert len(world.ids) == 1 and world.page.run("gapsShown") == []


def test_the_websocket_page_gets_a_new_id_where_the_old_one_ended(hasty_world):
    world = hasty_world
    world.show(block("websocket"))
    eventually(lambda: world.page.run("taken.length") == 1, "the first marker")
    world.say("one")
    world.wait_until_shown("one")
    known = len(world.ids)
    poll = f"{world.server.url}/listen?conn_id={world.ids[-1]}"
    with world.network.down():
        eventually(lambda: requests.head(poll, timeout=PATIENCE).status_code == 401, "the end of the id")
        world.say("two", "three")
    world.wait_until_shown("one", "two", "three")
    assert world.taken() == ["one", "two", "three"], "once each"
    assert len(world.ids) > known and world.page.run("gapsShown") == []


def test_the_websocket_page_tells_of_a_gap_and_begins_anew(world):
    def has_dropped_some():
        world.say("one more")
        return len(world.server.ask("/history", {"channel": world.room, "limit": 1000})["messages"]) < 400

    world.show(block("websocket"))
    world.say("seen")
    world.wait_until_shown("seen")
    with world.network.down():
        world.say(*(f"{number} {'x' * 1000}" for number in range(600)))
        eventually(has_dropped_some, "dropping what the channel need not keep")
        # The first attempt breaks off before the marker, and with it the word of the gap.
        world.network.cut_after = [rb".*\"catchup\":\s*true.{150000}"]
    eventually(lambda: world.page.run("gapsShown.length"), "hearing of the gap")
    assert world.network.cuts == 2 and world.page.run("taken.length") > 250, "some were taken twice"
    eventually(lambda: len(world.ids) == 2, "beginning anew")
    history = world.server.ask("/history", {"channel": world.room, "limit": 100})["messages"]
    world.wait_until_shown(*(entry["message"]["text"] for entry in history))
    world.say("after that")
    eventually(lambda: world.shown()[-1] == "after that", "listening again")
    assert world.page.run("gapsShown") == [{"channel": world.room, "reason": "trimmed"}]


def test_the_page_with_an_event_source_misses_nothing(world):
    lines = block("EventSource").replace("const source", "source")
    script = block("websocket").replace("stayConnected();\n", "")
    one, two = world.say("one", "two")
    world.show(f"{script}{EVENT_SOURCE}\nfunction open() {{ {lines} }}\nstart();")
    world.wait_until_shown("one", "two")
    eventually(lambda: world.page.run("taken.length") == 1, "the first marker")
    with world.network.down():
        world.say("three")
        world.server.edit(world.room, one, "One")
        world.server.delete(world.room, two)
    world.wait_until_shown("One", "three")
    world.server.stop(signal.SIGKILL)
    world.server.start()
    world.say("four")
    world.wait_until_shown("One", "three", "four")
    assert world.taken() == ["three", "One", two, "four"], "once each"
    assert len(world.ids) == 1 and world.page.run("begun") == 0
    world.server.ask("/disconnect", {"conn_id": world.ids[0]})
    eventually(lambda: world.page.run("begun") == 1, "beginning anew")

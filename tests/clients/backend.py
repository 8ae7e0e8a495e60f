"""A Python back end as people write it: itsdangerous signs, requests sends, and a listener says what it heard.

Black box: BASE_URL and SECRET say which server. Names are new in every run, so the server may hold other data.
"""
import json
import os
import time
import uuid
from unittest.mock import ANY

import itsdangerous
import pytest
import requests
import websocket

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8000").rstrip("/")
SECRET = os.environ.get("SECRET", "secret")
PATIENCE = 10  # seconds
SETTINGS = {
    "notify_presence": True,
    "broadcast_presence_with_user_lists": True,
    "notify_state": True,
    "store_history": True,
    "history_size": 5,
    "store_frames": True,
}
ADDED_KEYS = {"cursor", "replay_size", "history_ttl"}  # the original has them not, its clients ignore them


def sign(secret=SECRET):
    return {"x-channelstream-secret": itsdangerous.TimestampSigner(secret).sign("channelstream")}


def send(path, payload, verb="POST", headers=None):
    headers = dict(sign() if headers is None else headers, **{"Content-Type": "application/json"})
    return requests.request(verb, BASE_URL + path, data=json.dumps(payload), headers=headers, timeout=PATIENCE)


def ask(path, payload, verb="POST"):
    """Sends a signed request that has to succeed; gives the answer as a client of the original sees it."""
    response = send(path, payload, verb)
    assert response.status_code == 200, response.text
    return as_original(response.json())


def as_original(value):
    """Leaves out added keys, and sorts lists of users with their states, which come in no particular order."""
    if isinstance(value, dict):
        return {key: as_original(inner) for key, inner in value.items() if key not in ADDED_KEYS}
    if isinstance(value, list):
        items = [as_original(item) for item in value]
        is_user_list = items and all(isinstance(item, dict) and set(item) == {"user", "state"} for item in items)
        return sorted(items, key=lambda item: item["user"]) if is_user_list else items
    return value


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:8]}"


def channel_info(name, users, history=()):
    return {
        "name": name, "long_name": None, "uuid": ANY, "last_active": ANY, "settings": SETTINGS,
        "history": list(history), "users": users, "total_users": len(users), "total_connections": len(users),
    }


class Listener:
    """Gives what a connection hears, one event at a time."""

    def __init__(self, conn_id):
        self.conn_id = conn_id
        self.events = []
        self.open()

    def next(self, catchup=None):
        deadline = time.monotonic() + PATIENCE
        while not self.events:
            assert time.monotonic() < deadline, "nothing was heard"
            self.events += self.receive()
        event = as_original(self.events.pop(0))
        assert event.pop("catchup", False) in (catchup or self.catchup)
        return event


class WebSocket(Listener):
    catchup = [False]

    def open(self):
        url = f"ws{BASE_URL[len('http'):]}/ws?conn_id={self.conn_id}"
        self.socket = websocket.create_connection(url, timeout=PATIENCE)

    def receive(self):
        return json.loads(self.socket.recv())

    def assert_ends(self):
        opcode, data = self.socket.recv_data()
        while opcode == websocket.ABNF.OPCODE_TEXT and json.loads(data) == []:
            opcode, data = self.socket.recv_data()
        assert (opcode, data[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1000).to_bytes(2, "big"))


class LongPoll(Listener):
    catchup = [False, True]  # events between two polls are caught up

    def open(self):
        self.url = f"{BASE_URL}/listen?conn_id={self.conn_id}"

    def receive(self):
        response = requests.get(self.url, timeout=PATIENCE)
        assert response.status_code == 200, response.text
        return response.json()

    def assert_ends(self):
        time.sleep(2)  # a poll before the next sweep would revive the connection
        assert requests.get(self.url, timeout=PATIENCE).status_code == 401


@pytest.mark.parametrize("transport", [WebSocket, LongPoll])
def test_walk(transport):
    ann, bob, room, lobby = unique("ann"), unique("bob"), unique("room"), unique("lobby")

    # connect
    ann_state = {"color": "red", "age": 41}
    answer = ask("/connect", {
        "username": ann, "channels": [room], "channel_configs": {room: SETTINGS, lobby: SETTINGS},
        "fresh_user_state": {"age": 41}, "user_state": {"color": "red"}, "state_public_keys": ["color"],
    })
    ann_id = answer["conn_id"]
    assert answer == {
        "conn_id": str(uuid.UUID(ann_id)),
        "username": ann,
        "state": ann_state,
        "public_state": {"color": "red"},
        "channels": [room],
        "channels_info": {
            "channels": {room: channel_info(room, [ann])},
            "users": [{"user": ann, "state": ann_state}],
        },
    }
    listener = transport(ann_id)

    # a private message: the first thing to be heard, so it may be a catch-up; from here on the socket is live
    [said] = ask("/message", [{"user": "server", "pm_users": [ann], "message": {"text": "welcome"}}])
    assert said["pm_users"] == [ann] and said["channel"] is None
    heard = listener.next(catchup=[False, True])
    assert heard == {
        "type": "message", "channel": None, "uuid": said["uuid"], "timestamp": said["timestamp"],
        "user": "server", "message": {"text": "welcome"}, "edited": None,
    }

    # somebody joins
    answer = ask("/connect", {
        "username": bob, "channels": [room], "user_state": {"color": "blue"}, "state_public_keys": ["color"],
    })
    bob_id = answer["conn_id"]
    assert answer["channels_info"]["channels"] == {room: channel_info(room, [ann, bob])}
    assert listener.next() == {
        "type": "presence", "channel": room, "uuid": ANY, "timestamp": ANY,
        "user": bob, "message": {"action": "joined"}, "state": {"color": "blue"},
        "users": [{"user": ann, "state": {"color": "red"}}, {"user": bob, "state": {"color": "blue"}}],
    }

    # message
    [said] = ask("/message", [{"channel": room, "user": bob, "message": {"text": "helo"}}])
    assert said == {
        "channel": room, "uuid": ANY, "timestamp": ANY, "user": bob, "message": {"text": "helo"}, "edited": None,
        "pm_users": [], "exclude_users": [], "no_history": False,
    }
    assert listener.next() == {
        "type": "message", "channel": room, "uuid": said["uuid"], "timestamp": said["timestamp"],
        "user": bob, "message": {"text": "helo"}, "edited": None,
    }

    # edit
    target = {"channel": room, "uuid": said["uuid"]}
    [edited] = ask("/message", [{**target, "message": {"text": "hello"}}], "PATCH")
    assert edited == {
        **target, "message": {"text": "hello"}, "edited": ANY,
        "pm_users": [], "exclude_users": [], "no_history": False,
    }
    assert listener.next() == {
        **target, "type": "message:edit", "message": {"text": "hello"}, "edited": edited["edited"],
    }
    stored = {**said, "type": "message", "catchup": False, "message": {"text": "hello"}, "edited": edited["edited"]}
    answer = ask("/info", {"info": {"channels": [room]}})
    assert answer["channels"] == {room: channel_info(room, [ann, bob], [stored])}

    # delete
    [deleted] = ask("/message", [target], "DELETE")
    assert deleted == {**target, "pm_users": [], "exclude_users": [], "no_history": False}
    assert listener.next() == {**target, "type": "message:delete"}
    answer = ask("/info", {"info": {"channels": [room]}})
    assert answer["channels"] == {room: channel_info(room, [ann, bob])}

    # user_state
    mood = {"key": "mood", "value": "ok"}
    bob_state = {"color": "blue", "mood": "ok", "age": 8}
    answer = ask("/user_state", {
        "user": bob, "user_state": {"mood": "ok", "age": 8, "color": "blue"}, "state_public_keys": ["mood"],
    })
    assert answer == {
        "user_state": bob_state, "changed_state": [mood, {"key": "age", "value": 8}], "public_keys": ["mood"],
    }
    assert listener.next() == {
        "type": "user_state_change", "channel": room, "uuid": ANY, "timestamp": ANY,
        "user": bob, "message": {"state": {"mood": "ok"}, "changed": [mood]},
    }

    # subscribe
    answer = ask("/subscribe", {"conn_id": ann_id, "channels": [lobby], "channel_configs": {lobby: SETTINGS}})
    everybody = [{"user": ann, "state": ann_state}, {"user": bob, "state": bob_state}]
    assert answer == {
        "subscribed_to": [lobby],
        "channels": [lobby, room],
        "channels_info": {
            "channels": {lobby: channel_info(lobby, [ann]), room: channel_info(room, [ann, bob])},
            "users": everybody,
        },
    }
    ask("/message", [{"channel": lobby, "user": bob, "message": {"text": "in the lobby"}}])
    assert listener.next()["message"] == {"text": "in the lobby"}

    # unsubscribe
    answer = ask("/unsubscribe", {"conn_id": ann_id, "channels": [lobby]})
    assert answer == {
        "unsubscribed_from": [lobby],
        "channels": [room],
        "channels_info": {"channels": {room: channel_info(room, [ann, bob])}, "users": everybody},
    }
    ask("/message", [
        {"channel": lobby, "user": bob, "message": {"text": "to nobody"}},
        {"channel": room, "user": bob, "message": {"text": "to nobody"}, "exclude_users": [ann]},
        {"channel": room, "user": bob, "message": {"text": "to ann"}},
    ])
    assert listener.next()["message"] == {"text": "to ann"}

    # disconnect
    def disconnect(conn_id):
        return requests.post(f"{BASE_URL}/disconnect", json={"conn_id": conn_id}, timeout=PATIENCE).json()

    assert disconnect(bob_id) is True
    assert listener.next() == {
        "type": "presence", "channel": room, "uuid": ANY, "timestamp": ANY,
        "user": bob, "message": {"action": "parted"}, "state": None,
        "users": [{"user": ann, "state": {"color": "red"}}],
    }
    assert disconnect(ann_id) is True
    listener.assert_ends()
    response = send("/subscribe", {"conn_id": ann_id, "channels": [lobby]})
    assert (response.status_code, response.json()) == (422, {"conn_id": ["Unknown connection"]})
    assert disconnect(str(uuid.uuid4())) is False


def test_who_cannot_sign_is_refused():
    class SignerOfAMinuteAgo(itsdangerous.TimestampSigner):
        def get_timestamp(self):
            return super().get_timestamp() - 70

    payload = {"username": unique("eve"), "channels": [unique("room")]}
    assert send("/connect", payload, headers={}).status_code == 403
    expired = {"x-channelstream-secret": SignerOfAMinuteAgo(SECRET).sign("channelstream")}
    for headers in (sign("wrong" + SECRET), expired):
        response = send("/connect", payload, headers=headers)
        assert (response.status_code, response.json()) == (401, {"request": "Bad Signature"})


def test_mistakes_are_named():
    response = send("/connect", {"channels": [""]})
    assert response.status_code == 422
    assert response.json() == {
        "username": ["Missing data for required field."],
        "channels": {"0": ["Length must be between 1 and 256."]},
    }

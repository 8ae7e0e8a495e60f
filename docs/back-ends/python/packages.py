"""Signs requests to Channelstream and makes the main calls, with the packages itsdangerous and requests."""

import json
import os
import uuid

import itsdangerous
import requests

URL = os.environ.get("CHANNELSTREAM_URL", "http://127.0.0.1:8000")
SIGNER = itsdangerous.TimestampSigner(os.environ.get("CHANNELSTREAM_SECRET", "secret"))


def ask(method, path, body):
    """Sends a signed request, prints the answer and gives it back; ends the program at anything but a 200."""
    # A signature is good for 60 seconds: make one for each request.
    headers = {"x-channelstream-secret": SIGNER.sign("channelstream").decode()}
    response = requests.request(method, URL + path, json=body, headers=headers, timeout=10)
    if response.status_code != 200:
        raise SystemExit(f"{method} {path}: {response.status_code} {response.text}")
    print(json.dumps(response.json()))
    return response.json()


# Let Ann in. Her browser is given conn_id, and listens with it.
connected = ask("POST", "/connect", {
    "username": "ann", "channels": ["orders"], "channel_configs": {"orders": {"store_history": True}},
})
ask("POST", "/subscribe", {"conn_id": connected["conn_id"], "channels": ["news"]})
ask("POST", "/user_state", {"user": "ann", "user_state": {"language": "en"}, "state_public_keys": ["language"]})

# Uuids of our own: a post whose answer got lost may be repeated, and is not stored twice.
packed, mistake = str(uuid.uuid4()), str(uuid.uuid4())
ask("POST", "/message", [
    {"channel": "orders", "user": "shop", "uuid": packed, "message": {"text": "Your order is packed"}},
    {"channel": "orders", "user": "shop", "uuid": mistake, "message": {"text": "Your order is lost"}},
])
ask("PATCH", "/message", [{"channel": "orders", "uuid": packed, "message": {"text": "Your order is on its way 📦"}}])
ask("DELETE", "/message", [{"channel": "orders", "uuid": mistake}])

ask("POST", "/info", {"info": {"channels": ["orders"]}})
ask("POST", "/history", {"channel": "orders", "limit": 10})

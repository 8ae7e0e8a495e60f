"""Signs requests to Channelstream and makes the main calls, with nothing but the standard library."""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

URL = os.environ.get("CHANNELSTREAM_URL", "http://127.0.0.1:8000")
SECRET = os.environ.get("CHANNELSTREAM_SECRET", "secret")


def base64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(secret):
    """Makes the text that proves who asks. It is good for 60 seconds: make one for each request."""
    timestamp = int(time.time()).to_bytes(8, "big").lstrip(b"\0")
    signed = "channelstream." + base64url(timestamp)
    key = hashlib.sha1(b"itsdangerous.Signer" + b"signer" + secret.encode()).digest()
    mac = hmac.new(key, signed.encode(), hashlib.sha1).digest()
    return signed + "." + base64url(mac)


def ask(method, path, body):
    """Sends a signed request, prints the answer and gives it back; ends the program at anything but a 200."""
    headers = {"Content-Type": "application/json", "x-channelstream-secret": sign(SECRET)}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {path}: {error.code} {error.read().decode()}")
    print(json.dumps(answer))
    return answer


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

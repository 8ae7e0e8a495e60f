"""The smallest back end: a page for Ann, and a way to notify her. Needs nothing but Python."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PUSH_SERVER = os.environ.get("CHANNELSTREAM_URL", "http://127.0.0.1:8000")
SECRET = os.environ.get("CHANNELSTREAM_SECRET", "secret")
PORT = int(os.environ.get("PORT", "5000"))
PAGE = pathlib.Path(__file__).with_name("page.html")


def sign():
    """Proves to the push server that it is the application who asks."""
    def base64url(raw):
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    signed = "app." + base64url(int(time.time()).to_bytes(8, "big").lstrip(b"\0"))
    key = hashlib.sha1(b"itsdangerous.Signer" + b"signer" + SECRET.encode()).digest()
    return signed + "." + base64url(hmac.new(key, signed.encode(), hashlib.sha1).digest())


def ask(path, body):
    headers = {"Content-Type": "application/json", "x-channelstream-secret": sign()}
    request = urllib.request.Request(PUSH_SERVER + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


class App(BaseHTTPRequestHandler):
    def do_GET(self):
        page = PAGE.read_text("utf-8").replace("{{push_server}}", PUSH_SERVER)
        self.answer("text/html; charset=utf-8", page.encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        try:
            if self.path == "/push":
                # Your application knows from its session who this is. The browser gets no more than it needs: with what
                # it may listen, and from where on. An empty cursor is the beginning: the page shows nothing yet.
                connected = ask("/connect", {"username": "ann"})
                self.answer_json({"conn_id": connected["conn_id"], "cursor": ""})
            elif self.path == "/notify":
                # A private message: Ann gets it wherever she is, also later.
                self.answer_json(ask("/message", [{"user": "shop", "pm_users": ["ann"], "message": {"text": body}}]))
            else:
                self.send_error(404)
        except OSError as error:  # the push server is away, or refuses
            self.send_error(503, f"{PUSH_SERVER}: {error}")

    def answer_json(self, value):
        self.answer("application/json", json.dumps(value).encode())

    def answer(self, content_type, content):
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    print(f"http://127.0.0.1:{PORT}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", PORT), App).serve_forever()

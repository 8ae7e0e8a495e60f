"""Chromium without a window, a small application whose pages it shows, and what lies between it and the push server.

CHROMIUM says which program, SERVER_BINARY which push server is started where a test has one of its own.
"""
import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse

import requests
import websocket

import backend

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 30  # seconds: only what fails takes so long


def eventually(look, what):
    """What `look` gives as soon as that is something; `what` says what is waited for, or is asked for it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what() if callable(what) else what} did not happen in time"
        time.sleep(0.02)
    return found


# ---- the browser ----

class Browser:
    FLAGS = (
        "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-proxy-server --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync --disable-extensions "
        "--disable-background-timer-throttling --disable-renderer-backgrounding "
        "--disable-backgrounding-occluded-windows --remote-debugging-port=0"
    ).split()

    def __init__(self):
        names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
        program = next(filter(None, (shutil.which(name) for name in names if name)), None)
        assert program, "there is no Chromium: install it, or say by the variable CHROMIUM where it is"
        self.home = pathlib.Path(tempfile.mkdtemp())
        places = {name: str(self.home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
        self.log = (self.home / "log").open("w")
        self.process = subprocess.Popen(
            [program, *self.FLAGS, f"--user-data-dir={self.home / 'data'}", "about:blank"],
            env={**os.environ, **places}, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True,
        )
        self.address = f"http://127.0.0.1:{eventually(self.port, self.why_not)}"

    def port(self):
        with contextlib.suppress(OSError, IndexError):
            return (self.home / "data" / "DevToolsActivePort").read_text().split()[0]

    def why_not(self):
        return f"the start of Chromium, which says {(self.home / 'log').read_text()!r},"

    def open(self, url):
        return Page(self.address, url)

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it started is in its session, too
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.home, ignore_errors=True)


class Page:
    """A page in a tab of its own, driven from outside."""

    def __init__(self, browser, url):
        self.browser = browser
        target = requests.put(f"{browser}/json/new?{urllib.parse.quote(url, safe='')}", timeout=PATIENCE).json()
        self.id = target["id"]
        self.socket = websocket.create_connection(
            target["webSocketDebuggerUrl"], timeout=PATIENCE, suppress_origin=True,
        )
        self.number = 0
        eventually(lambda: self.run("document.readyState === 'complete' && location.href") == url, f"loading {url}")

    def run(self, script):
        """What an expression gives; a promise is waited for."""
        self.number += 1
        options = {"expression": script, "awaitPromise": True, "returnByValue": True}
        self.socket.send(json.dumps({"id": self.number, "method": "Runtime.evaluate", "params": options}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.number:
            pass
        failure = answer.get("error") or answer["result"].get("exceptionDetails")
        assert not failure, f"{script}: {json.dumps(failure)}"
        return answer["result"]["result"].get("value")

    def call(self, function, *arguments):
        return self.run(f"{function}({', '.join(map(json.dumps, arguments))})")

    def close(self):
        self.socket.close()
        requests.get(f"{self.browser}/json/close/{self.id}", timeout=PATIENCE)


# ---- the application ----

class Application:
    """Serves pages by name, and does for them what they ask for: `pages` are texts, `actions` functions."""

    def __init__(self, pages, actions=()):
        pages, actions = dict(pages), dict(actions)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                page = pages.get(self.path)
                self.answer(404 if page is None else 200, "text/html; charset=utf-8", (page or "").encode())

            def do_POST(self):
                asked = self.rfile.read(int(self.headers["Content-Length"] or 0))
                answer = actions[self.path](asked.decode())
                self.answer(200, "application/json", json.dumps(answer).encode())

            def answer(self, status, kind, body):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


# ---- the network ----

class Network:
    """A way to a server that can be cut: a TCP proxy."""

    def __init__(self, url):
        address = urllib.parse.urlsplit(url)
        self.target = (address.hostname, address.port or 80)
        self.lock = threading.Lock()
        self.links = set()
        self.is_up = True
        self.cut_after = []  # patterns: the next connections, one each, are cut behind what the server sent first of that
        self.opened = 0
        self.cuts = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.link, args=(client,), daemon=True).start()

    def link(self, client):
        with self.lock:
            pattern = self.cut_after.pop(0) if self.is_up and self.cut_after else None
            try:
                server = socket.create_connection(self.target) if self.is_up else None
            except OSError:
                server = None  # it is being restarted
            if not server:
                reset(client)
                return
            self.opened += 1
            link = (client, server)
            self.links.add(link)
        threading.Thread(target=self.pass_on, args=(link, client, server, None), daemon=True).start()
        self.pass_on(link, server, client, pattern)

    def pass_on(self, link, source, target, pattern):
        passed = b""
        while True:
            try:
                data = source.recv(65536)
                match = re.match(pattern, passed + data, re.DOTALL) if pattern else None
                target.sendall(data[:match.end() - len(passed)] if match else data)
            except OSError:
                return self.end(link)
            if match or not data:
                return self.end(link, is_cut=bool(data))
            if pattern:
                passed += data

    def end(self, link, is_cut=False):
        """A link that is cut ends with what was on its way to the browser; the server sees a lost connection."""
        with self.lock:
            if link not in self.links:
                return
            self.links.discard(link)
            self.cuts += is_cut
        for end in link:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for end in link:
            end.close()

    def cut(self):
        """Ends what is open; what is opened afterwards goes through."""
        with self.lock:
            links = list(self.links)
        for link in links:
            self.end(link, is_cut=True)

    @contextlib.contextmanager
    def down(self):
        self.is_up = False
        self.cut()
        yield
        self.is_up = True

    def close(self):
        self.is_up = False
        self.listener.close()
        self.cut()


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# ---- the push server ----

class PushServer:
    """The push server at an address, as the application's back end sees it."""

    def __init__(self, url=backend.BASE_URL):
        self.url = url

    def ask(self, path, payload, verb="POST"):
        answer = requests.request(verb, self.url + path, json=payload, headers=backend.sign(), timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def say(self, channel, *texts):
        said = [{"user": "bob", "channel": channel, "message": {"text": text}} for text in texts]
        return [message["uuid"] for message in self.ask("/message", said)]

    def edit(self, channel, uuid, text):
        self.ask("/message", [{"channel": channel, "uuid": uuid, "message": {"text": text}}], "PATCH")

    def delete(self, channel, uuid):
        self.ask("/message", [{"channel": channel, "uuid": uuid}], "DELETE")


class OwnServer(PushServer):
    """A push server of the test's own, which may be killed and started again."""

    def __init__(self, **settings):
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
        self.program = pathlib.Path(os.environ.get("SERVER_BINARY") or REPOSITORY / target / "debug" / "channelstream")
        assert self.program.is_file(), (
            f"there is no server at {self.program}: run `cargo build`, or say by SERVER_BINARY where one is"
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{port}")
        self.folder = pathlib.Path(tempfile.mkdtemp())
        settings = {
            "host": "127.0.0.1", "port": port, "secret": backend.SECRET, "drain_seconds": 0,
            "database_url": f"sqlite://{self.folder}/channelstream.db", **settings,
        }
        others = {key: value for key, value in os.environ.items() if not key.startswith("CHANNELSTREAM_")}
        self.environment = {**others, **{f"CHANNELSTREAM_{key.upper()}": str(value) for key, value in settings.items()}}
        self.start()

    def start(self):
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen([self.program], env=self.environment, stderr=log)
        eventually(self.is_ready, lambda: f"the start of the server, which says {(self.folder / 'log').read_text()!r},")

    def is_ready(self):
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/readyz", timeout=PATIENCE).status_code == 200

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(PATIENCE)

    def close(self):
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder)

"""The back end and the page of docs/start.md, as they are printed there, in Chromium: what the text promises."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
import requests

import backend
from browser import PATIENCE, REPOSITORY, Browser, OwnServer, eventually


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def server():
    server = OwnServer()
    yield server
    server.close()


@pytest.fixture
def application(server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    names = {"CHANNELSTREAM_URL": server.url, "CHANNELSTREAM_SECRET": backend.SECRET, "PORT": str(port)}
    process = subprocess.Popen([sys.executable, REPOSITORY / "docs" / "start" / "app.py"], env={**os.environ, **names},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def answers():
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(url, timeout=PATIENCE).ok

    eventually(answers, "the start of the application")
    yield url
    process.terminate()
    process.wait()


def notify(application, text):
    answer = requests.post(f"{application}/notify", data=text.encode(), timeout=PATIENCE)
    assert answer.status_code == 200, answer.text


def shown(page):
    return page.run("[...document.querySelectorAll('#notifications li')].map((item) => item.textContent)")


def test_a_notification_is_shown_and_survives_everything(browser, server, application):
    page = browser.open(f"{application}/")
    eventually(lambda: page.run("performance.getEntriesByType('resource').some(({ name }) => name.endsWith('/push'))"),
               "asking for a connection id")
    notify(application, "Your order is packed")
    eventually(lambda: shown(page) == ["Your order is packed"], lambda: f"a notification on a page with {shown(page)}")

    server.stop(signal.SIGKILL)
    assert requests.post(f"{application}/notify", data=b"Nobody hears this", timeout=PATIENCE).status_code == 503
    server.start()
    notify(application, "Your order is on its way")
    both = ["Your order is packed", "Your order is on its way"]
    eventually(lambda: shown(page) == both, lambda: f"coming back, to a page with {shown(page)},")
    page.close()

    notify(application, "Your order is at your door")
    page = browser.open(f"{application}/")
    everything = [*both, "Your order is at your door"]
    eventually(lambda: shown(page) == everything, lambda: f"all notifications on a new page with {shown(page)}")
    page.close()

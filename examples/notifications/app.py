"""The back end of the notifications: knows who its users are, and says things to them."""

import json
import os
import pathlib
import urllib.request

import itsdangerous  # comes with Flask
from flask import Flask, jsonify, redirect, render_template, request, send_from_directory, session

PUSH_SERVER = os.environ.get("CHANNELSTREAM_URL", "http://127.0.0.1:8000")
CLIENT = pathlib.Path(__file__).resolve().parents[2] / "clients" / "js"

signer = itsdangerous.TimestampSigner(os.environ.get("CHANNELSTREAM_SECRET", "secret"))
app = Flask(__name__, template_folder=".")
app.secret_key = os.urandom(32)


def push(path, asked):
    """Asks the push server for something, as only a back end may."""
    headers = {"Content-Type": "application/json", "x-channelstream-secret": signer.sign("notifications").decode()}
    call = urllib.request.Request(PUSH_SERVER + path, json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(call, timeout=10) as answer:
        return json.load(answer)


@app.get("/")
def page():
    # An application has its own way of finding out who somebody is; here everybody is who they say.
    session["user"] = request.args.get("user") or session.get("user", "ann")
    return render_template("page.html", user=session["user"], push_server=PUSH_SERVER)


@app.post("/connect")
def connect():
    """Lets the user's page listen; and tells it what was said before, for it shows nothing yet."""
    connected = push("/connect", {"username": session["user"]})
    said = push("/history", {"user": session["user"]})["messages"]
    return jsonify(conn_id=connected["conn_id"], cursor=connected["cursor"], channels=[], said=said)


@app.post("/notify")
def notify():
    """Says something to a user, who is online or was before. An application calls this from its own code."""
    message = {"text": request.form["text"]}
    push("/message", [{"user": "notifications", "pm_users": [request.form["to"]], "message": message}])
    return redirect("/", 303)


@app.get("/channelstream.js")
def client():
    return send_from_directory(CLIENT, "channelstream.js")


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))

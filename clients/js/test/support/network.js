/** What lies between a page and the push server: passes on what is said, and fails as networks do. */

import { once } from "node:events";
import { connect, createServer } from "node:net";

const LISTENING = /^(GET|HEAD) \/(ws|sse|listen)\?/;

export class Network {
  #server;
  #port;
  /** Pairs of sockets: `page` is the side of the page, `server` that of the push server. */
  #wires = new Set();

  /** Nobody can be reached. */
  isDown = false;
  /** How often that was so when somebody came. */
  turnedAway = 0;
  /** Websocket handshakes are refused. */
  refusesUpgrades = false;
  /** Streams of events are held back, as by a proxy that wants to have an answer whole. */
  holdsStreams = false;
  /** After how many bytes from the server to cut websockets and streams. */
  cutsAfter = Infinity;
  /** How many were cut so. */
  cuts = 0;
  /** The first lines of all requests for listening: `GET /ws?conn_id=…`. */
  asked = [];
  /** How many messages the page sent over websockets. */
  sent = 0;

  /** A network that leads to that port of this machine. */
  static async to(port) {
    const network = new Network();
    network.#port = port;
    network.#server = createServer((socket) => network.#accept(socket)).listen(0, "127.0.0.1");
    await once(network.#server, "listening");
    network.url = `http://127.0.0.1:${network.#server.address().port}`;
    return network;
  }

  #accept(page) {
    page.on("error", () => {});
    if (this.isDown) {
      this.turnedAway += 1;
      page.destroy();
      return;
    }
    const server = connect(this.#port, "127.0.0.1");
    const wire = { page, server, isStalled: false, isHeldBack: false, request: null, allowed: Infinity };
    this.#wires.add(wire);
    server.on("error", () => {});
    page.on("data", (data) => this.#fromPage(wire, data));
    server.on("data", (data) => this.#fromServer(wire, data));
    for (const [one, other] of [[page, server], [server, page]]) {
      one.on("close", () => {
        this.#wires.delete(wire);
        if (!wire.isStalled) other.destroy();
      });
    }
  }

  #fromPage(wire, data) {
    if (LISTENING.test(data.toString("latin1"))) {
      wire.request = data;
      const [line] = data.toString("latin1").split("\r\n");
      this.asked.push(line);
      if (this.refusesUpgrades && line.startsWith("GET /ws?")) {
        wire.page.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
      }
      wire.isHeldBack = this.holdsStreams && line.startsWith("GET /sse?");
      wire.allowed = line.includes("/listen?") ? Infinity : this.cutsAfter;
    } else if (wire.request?.toString("latin1").startsWith("GET /ws?")) {
      this.sent += 1;
    }
    if (!wire.isStalled) wire.server.write(data);
  }

  #fromServer(wire, data) {
    if (wire.isStalled || wire.isHeldBack) return;
    wire.page.write(data.subarray(0, wire.allowed));
    wire.allowed -= data.length;
    if (wire.allowed >= 0) return;
    this.cuts += 1;
    this.#cut(wire);
  }

  #cut(wire) {
    wire.page.resetAndDestroy();
    wire.server.resetAndDestroy();
  }

  /** Cuts all that is open. */
  cut() {
    for (const wire of this.#wires) this.#cut(wire);
  }

  /** From now on nothing passes over what is open, and nobody is told so. What is opened from now on works. */
  stall() {
    for (const wire of this.#wires) wire.isStalled = true;
  }

  /** Somebody else listens with the same connection id: says what the page said last, and waits for an answer to begin. */
  async listenToo() {
    const wires = [...this.#wires].filter(({ request }) => request !== null);
    const socket = connect(this.#port, "127.0.0.1");
    socket.on("error", () => {});
    socket.write(wires.at(-1).request);
    socket.resume();
    // A poll is answered when something happens, and has taken over long before.
    if (!wires.at(-1).request.toString("latin1").startsWith("GET /listen?")) await once(socket, "data");
    return socket;
  }

  async remove() {
    this.#server.close();
    this.cut();
    await once(this.#server, "close");
  }
}

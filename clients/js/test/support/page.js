/** A page of the application: a client that remembers what it was told. */

import { ChannelStreamConnection } from "../../channelstream.js";
import { until } from "./until.js";

const CALLBACKS = Object.getOwnPropertyNames(ChannelStreamConnection.prototype).filter((name) => /Callback$/.test(name));

/** The ways of listening, with what makes a client use just that one. */
export const TRANSPORTS = {
  websocket: { noSse: true, longPollUrl: "" },
  sse: { noWebsocket: true, longPollUrl: "" },
  longPoll: { noWebsocket: true, noSse: true },
};

export class Page {
  /** `{name, details}` of each callback, in order. */
  told = [];
  /** The events that it was told of. */
  events = [];

  /** `network` is what leads to the push server; `options` are properties of the client. */
  constructor(application, network, username, channels, options = {}) {
    this.client = Object.assign(new ChannelStreamConnection(), {
      username,
      channels,
      connectUrl: `${application.url}/connect`,
      subscribeUrl: `${application.url}/subscribe`,
      unsubscribeUrl: `${application.url}/unsubscribe`,
      userStateUrl: `${application.url}/user_state`,
      messageUrl: `${application.url}/message`,
      messageEditUrl: `${application.url}/message`,
      messageDeleteUrl: `${application.url}/message`,
      websocketUrl: `${network.url.replace("http", "ws")}/ws`,
      sseUrl: `${network.url}/sse`,
      longPollUrl: `${network.url}/listen`,
      disconnectUrl: `${network.url}/disconnect`,
      increaseBounceIv: 20,
      ...options,
    });
    for (const name of CALLBACKS) {
      this.client[name] = (...details) => {
        this.told.push({ name, details });
        if (name === "listenMessageCallback") this.events.push(...details[0]);
      };
    }
  }

  /** Connects, and waits until it listens. */
  async connect() {
    this.client.connect();
    await this.hears("listenOpenedCallback");
    return this;
  }

  /** How often it was told that. */
  count(name) {
    return this.told.filter((one) => one.name === name).length;
  }

  /** What it was told by a callback, as soon as it was told so often. */
  async hears(name, times = 1) {
    const named = () => this.told.filter((one) => one.name === name);
    await until(() => named().length >= times, () => `${name} ${times} times, but ${this.story()}`);
    return named()[times - 1].details;
  }

  /** The texts of its messages, as soon as it was told of so many events. */
  async texts(count) {
    await until(() => this.events.length >= count, () => `${count} events, but ${this.story()}`);
    return this.events.map(({ message }) => message?.text);
  }

  story() {
    const names = this.told.map(({ name }) => name).filter((name, at, all) => name !== all[at - 1]);
    return `${names.join(" ")} and ${this.events.length} events`;
  }
}

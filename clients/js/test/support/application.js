/** The application of which the tests' pages are: asks the push server for what a page asks for. */

import { once } from "node:events";
import { createServer } from "node:http";

import { BackendError } from "../../sign.js";

export class Application {
  #server;
  #backend;

  /** Settings of the channels that it makes. */
  channelSettings = { store_history: true, replay_size: 10_000 };
  /** How many of the next requests it refuses, and with which status. */
  failures = 0;
  failureStatus = 500;
  /** Whether it passes on the cursor of `/connect`. */
  passesCursor = true;
  /** `{path, method, headers, body}` of each request. */
  asked = [];

  static async on(backend) {
    const application = new Application();
    application.#backend = backend;
    application.#server = createServer((request, response) => application.#answer(request, response));
    application.#server.listen(0, "127.0.0.1");
    await once(application.#server, "listening");
    application.url = `http://127.0.0.1:${application.#server.address().port}`;
    return application;
  }

  async #answer(request, response) {
    let text = "";
    for await (const piece of request) text += piece;
    const { method, url: path, headers } = request;
    const body = JSON.parse(text);
    this.asked.push({ path, method, headers, body });
    const answer = await this.#ask(`${method} ${path}`, body).catch((error) => {
      const isRefused = error instanceof BackendError;
      return { status: isRefused ? error.status : 502, data: isRefused ? error.body : String(error) };
    });
    response.writeHead(answer.status ?? 200, { "Content-Type": "application/json", "X-Answered-By": "the application" });
    response.end(JSON.stringify(answer.data ?? answer));
  }

  async #ask(request, body) {
    if (this.failures > 0) {
      this.failures -= 1;
      return { status: this.failureStatus, data: "not now" };
    }
    const settings = (channels) => Object.fromEntries(channels.map((channel) => [channel, this.channelSettings]));
    const backend = this.#backend;
    const actions = {
      "POST /connect": async ({ username, channels }) => {
        const answer = await backend.connect({
          username,
          channels,
          channel_configs: settings(channels),
          fresh_user_state: { mood: "new", plan: "secret" },
          state_public_keys: ["mood"],
        });
        if (!this.passesCursor) delete answer.cursor;
        return answer;
      },
      "POST /subscribe": ({ conn_id, channels }) =>
        backend.subscribe({ conn_id, channels, channel_configs: settings(channels) }),
      "POST /unsubscribe": (body) => backend.unsubscribe(body),
      "POST /user_state": ({ username, update_state }) =>
        backend.setUserState({ user: username, user_state: update_state }),
      "POST /message": (message) => backend.postMessages(message),
      "PATCH /message": (message) => backend.editMessages(message),
      "DELETE /message": (message) => backend.deleteMessages(message),
    };
    return actions[request]?.(body) ?? { status: 404, data: "no such thing" };
  }

  async remove() {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }
}

/** A push server of the tests' own, in a fresh directory, which may be killed and started again. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { Backend } from "../../sign.js";
import { until } from "./until.js";

const SECRET = "a secret of the tests";

/** The program: what the variable CHANNELSTREAM names, or what was built last. */
function program() {
  const built = ["release", "debug"].map((profile) =>
    fileURLToPath(new URL(`../../../../target/${profile}/channelstream`, import.meta.url)),
  );
  const found = process.env.CHANNELSTREAM ?? built.find(existsSync);
  if (!found) throw new Error("there is no server: build it, or say by the variable CHANNELSTREAM where it is");
  return found;
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export class Server {
  #directory;
  #settings;
  #process;

  /** Starts one; `settings` are keys of its configuration. */
  static async start(settings = {}) {
    const server = new Server();
    server.#directory = await mkdtemp(join(tmpdir(), "channelstream-js-"));
    server.port = await freePort();
    server.url = `http://127.0.0.1:${server.port}`;
    server.backend = new Backend({ url: `${server.url}/`, secret: SECRET });
    server.#settings = {
      host: "127.0.0.1",
      port: server.port,
      secret: SECRET,
      database_url: `sqlite://${join(server.#directory, "channelstream.db")}`,
      heartbeat_interval: 1,
      drain_seconds: 0,
      attach_rate: 0,
      ...settings,
    };
    await server.start();
    return server;
  }

  /** Starts it again. */
  async start() {
    const names = Object.entries(this.#settings).map(([key, value]) => [`CHANNELSTREAM_${key.toUpperCase()}`, value]);
    const log = openSync(join(this.#directory, "log"), "a");
    this.#process = spawn(program(), {
      cwd: this.#directory,
      env: Object.fromEntries(names),
      stdio: ["ignore", log, log],
    });
    const isReady = () => fetch(`${this.url}/readyz`).then(({ ok }) => ok, () => false);
    await until(async () => this.#process.exitCode !== null || (await isReady()), "the server's start");
    if (this.#process.exitCode !== null) throw new Error(await readFile(join(this.#directory, "log"), "utf8"));
  }

  /** Stops it, by default without any warning. */
  async stop(signal = "SIGKILL") {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    this.#process.kill(signal);
    await once(this.#process, "exit");
  }

  async remove() {
    await this.stop();
    await rm(this.#directory, { recursive: true });
  }
}

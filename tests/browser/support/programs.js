/** The programs that a test needs, each on a port of its own: a push server that may be killed, and applications. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { until } from "./until.js";

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A program that answers at `url`, and may be stopped and started again. */
class Program {
  #command;
  #environment;
  #folder;
  #path;
  #process;

  constructor(command, environment, folder, port, path) {
    this.#command = command;
    this.#environment = environment;
    this.#folder = folder;
    this.#path = path;
    this.url = `http://127.0.0.1:${port}`;
  }

  async start() {
    const [program, ...given] = this.#command;
    const log = await open(join(this.#folder, "log"), "a");
    const environment = { PATH: process.env.PATH, PYTHONDONTWRITEBYTECODE: "1", ...this.#environment };
    this.#process = spawn(program, given, { cwd: this.#folder, env: environment, stdio: ["ignore", log.fd, log.fd] });
    await log.close();
    const answers = () => fetch(this.url + this.#path).then(({ ok }) => ok, () => false);
    await until(async () => this.#process.exitCode !== null || (await answers()), `the start of ${program}`);
    if (this.#process.exitCode !== null) throw new Error(`${program}: ${await this.log()}`);
  }

  log() {
    return readFile(join(this.#folder, "log"), "utf8");
  }

  /** Ends it without any warning. */
  async kill() {
    this.#process.kill("SIGKILL");
    if (this.#process.exitCode === null && this.#process.signalCode === null) await once(this.#process, "exit");
  }

  async remove() {
    await this.kill();
    await rm(this.#folder, { recursive: true });
  }
}

/** A server with the default settings, but for where it is. */
export async function pushServer() {
  const port = await freePort();
  const folder = await mkdtemp(join(tmpdir(), "push-server-"));
  const environment = { CHANNELSTREAM_HOST: "127.0.0.1", CHANNELSTREAM_PORT: port };
  const server = new Program([process.env.SERVER_BINARY], environment, folder, port, "/readyz");
  await server.start();
  return server;
}

/** An application, by its command, beside that server. */
export async function application(command, push, path = "/") {
  const port = await freePort();
  const folder = await mkdtemp(join(tmpdir(), "application-"));
  const program = new Program(command, { CHANNELSTREAM_URL: push.url, PORT: port }, folder, port, path);
  await program.start();
  return program;
}

/**
 * For back ends in JavaScript: signs requests, and calls the endpoints of a Channelstream server.
 *
 * Runs where WebCrypto and `fetch` are: Node, Deno, Bun, workers at the edge. It holds the secret that the server shares
 * with its back ends, so it has no place in a page.
 */

const encoder = new TextEncoder();

/** Makes the tokens by which a server knows its back ends; Python's itsdangerous calls this a `TimestampSigner`. */
export class Signer {
  #key;

  /** `secret` is the one of the server's configuration. */
  constructor(secret) {
    this.#key = deriveKey(secret);
    // Whoever signs hears of a failure; nobody else has to.
    this.#key.catch(() => {});
  }

  /**
   * Signs a value, any will do, as of `unixSeconds`, by default now. Gives the value of the header
   * `x-channelstream-secret`, good for 60 seconds.
   */
  async sign(value = "channelstream", unixSeconds = Math.floor(Date.now() / 1000)) {
    const text = `${value}.${base64url(bigEndian(unixSeconds))}`;
    const mac = await crypto.subtle.sign("HMAC", await this.#key, encoder.encode(text));
    return `${text}.${base64url(new Uint8Array(mac))}`;
  }
}

async function deriveKey(secret) {
  const key = await crypto.subtle.digest("SHA-1", encoder.encode(`itsdangerous.Signersigner${secret}`));
  return crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-1" }, false, ["sign"]);
}

/** The bytes of a whole number without leading zeros; none for 0. */
function bigEndian(number) {
  const bytes = [];
  for (let rest = BigInt(number); rest > 0n; rest >>= 8n) bytes.unshift(Number(rest & 0xffn));
  return Uint8Array.from(bytes);
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The server refused, or could not answer well. */
export class BackendError extends Error {
  name = "BackendError";

  constructor(path, status, body, retryAfterSeconds) {
    super(`${path} was answered with ${status}: ${typeof body === "string" ? body : JSON.stringify(body)}`);
    /** The HTTP status. */
    this.status = status;
    /** What the server says: with 422 an object from fields to what is wrong with them. */
    this.body = body;
    /** With 503: repeat the request after so many seconds, messages with the same `uuid`. Else null. */
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/**
 * Calls a Channelstream server as an application's back end. Fields and answers are those of the wire protocol.
 *
 * Every method throws `BackendError` where the server answers with anything but 2xx, what `fetch` throws where there is
 * no answer, and a `TimeoutError` where that takes too long.
 */
export class Backend {
  #url;
  #signer;
  #timeout;

  /**
   * `url`: where the server is, such as `http://127.0.0.1:8000`; `secret`: what it shares with its back ends.
   * `timeout`: milliseconds that an answer may take; longer than the server's `commit_timeout`, or what was done counts as
   * not done.
   */
  constructor({ url, secret, timeout = 10_000 }) {
    this.#url = url.replace(/\/+$/, "");
    this.#signer = new Signer(secret);
    this.#timeout = timeout;
  }

  /** Lets a user in: gives `conn_id`, for the user's browser, and all that a page needs to begin. */
  connect(request) {
    return this.#ask("POST", "/connect", request);
  }

  /** Adds channels to a connection. */
  subscribe(request) {
    return this.#ask("POST", "/subscribe", request);
  }

  /** Takes channels from a connection. */
  unsubscribe(request) {
    return this.#ask("POST", "/unsubscribe", request);
  }

  /** Says something, to channels or to users. With a `uuid` of yours, repeating it does no harm. */
  postMessages(...messages) {
    return this.#ask("POST", "/message", messages);
  }

  /** Changes messages, named by `uuid` and `channel` or `pm_users`. */
  editMessages(...messages) {
    return this.#ask("PATCH", "/message", messages);
  }

  /** Takes messages back, named in the same way. */
  deleteMessages(...messages) {
    return this.#ask("DELETE", "/message", messages);
  }

  /** Changes the state of a user, and which of its keys are public. */
  setUserState(request) {
    return this.#ask("POST", "/user_state", request);
  }

  /** Creates channels and changes their settings: an object from names to settings. */
  configureChannels(settings) {
    return this.#ask("POST", "/channel_config", settings);
  }

  /** Tells about channels and who is in them; by default about all. */
  info(info = {}) {
    return this.#ask("POST", "/info", { info });
  }

  /** Reads stored messages of a channel, or private ones of a user, page by page. */
  history(request) {
    return this.#ask("POST", "/history", request);
  }

  /** Ends a connection; says whether there was one. */
  disconnect(connectionId) {
    return this.#ask("POST", "/disconnect", { conn_id: connectionId });
  }

  /** Forgets a user with all that is stored of it, and ends its connections. */
  forgetUser(user) {
    return this.#ask("DELETE", "/user", { user });
  }

  /** Forgets a channel with all that is stored of it. */
  forgetChannel(channel) {
    return this.#ask("DELETE", "/channel", { channel });
  }

  async #ask(method, path, request) {
    const response = await fetch(this.#url + path, {
      method,
      headers: { "Content-Type": "application/json", "x-channelstream-secret": await this.#signer.sign() },
      body: JSON.stringify(request),
      signal: AbortSignal.timeout(this.#timeout),
    });
    const text = await response.text();
    if (response.ok) return JSON.parse(text);
    const retryAfterSeconds = Number(response.headers.get("retry-after")) || null;
    throw new BackendError(path, response.status, readable(text), retryAfterSeconds);
  }
}

function readable(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

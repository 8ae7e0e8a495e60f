// Signs requests to Channelstream and makes the main calls, with what Node 18 and later has built in.

import { createHash, createHmac, randomUUID } from "node:crypto";

const url = process.env.CHANNELSTREAM_URL ?? "http://127.0.0.1:8000";
const secret = process.env.CHANNELSTREAM_SECRET ?? "secret";

/** Makes the text that proves who asks. It is good for 60 seconds: make one for each request. */
function sign(secret) {
  const timestamp = Buffer.alloc(8);
  timestamp.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 1000)));
  const firstByte = timestamp.findIndex((byte) => byte !== 0); // leading zero bytes are left out
  const signed = "channelstream." + timestamp.subarray(firstByte).toString("base64url");
  const key = createHash("sha1").update("itsdangerous.Signer" + "signer" + secret).digest();
  return signed + "." + createHmac("sha1", key).update(signed).digest("base64url");
}

/** Sends a signed request, prints the answer and gives it back; ends the program at anything but a 200. */
async function ask(method, path, body) {
  const response = await fetch(url + path, {
    method,
    headers: { "content-type": "application/json", "x-channelstream-secret": sign(secret) },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  if (response.status !== 200) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  const answer = await response.json();
  console.log(JSON.stringify(answer));
  return answer;
}

// Let Ann in. Her browser is given conn_id, and listens with it.
const { conn_id } = await ask("POST", "/connect", {
  username: "ann",
  channels: ["orders"],
  channel_configs: { orders: { store_history: true } },
});
await ask("POST", "/subscribe", { conn_id, channels: ["news"] });
await ask("POST", "/user_state", { user: "ann", user_state: { language: "en" }, state_public_keys: ["language"] });

// Uuids of our own: a post whose answer got lost may be repeated, and is not stored twice.
const packed = randomUUID();
const mistake = randomUUID();
await ask("POST", "/message", [
  { channel: "orders", user: "shop", uuid: packed, message: { text: "Your order is packed" } },
  { channel: "orders", user: "shop", uuid: mistake, message: { text: "Your order is lost" } },
]);
await ask("PATCH", "/message", [{ channel: "orders", uuid: packed, message: { text: "Your order is on its way 📦" } }]);
await ask("DELETE", "/message", [{ channel: "orders", uuid: mistake }]);

await ask("POST", "/info", { info: { channels: ["orders"] } });
await ask("POST", "/history", { channel: "orders", limit: 10 });

/** Uses the types as an application does; nothing runs: `tsc` says whether it is right, and that what is wrong is refused. */

import { ChannelStreamConnection, type ChannelStreamEvent, type Gap, type Transport } from "channelstream";
import { Backend, BackendError, Signer } from "channelstream/sign";

const connection = new ChannelStreamConnection();
connection.username = "ann";
connection.channels = ["news"];
connection.connectUrl = "/connect";
connection.websocketUrl = "wss://push.example.com/ws";
connection.connectCallback = (request, data) => console.log(request.status, request.getResponseHeader("date"), data);
connection.listenMessageCallback = (events) => events.forEach(show);
connection.gapCallback = (gaps) => gaps.map((gap: Gap) => gap.channel ?? gap.user).forEach((name) => console.log(name));
connection.listenCloseCallback = ({ code }) => console.log(code + 1);
connection.addMutator("connect", (request) => request.headers.push({ name: "X-CSRF-Token", value: "…" }));
connection.mutators.messageDelete.push((request) => (request.body.reason = "spam"));
connection.connect();
const transport: Transport | null = connection.transport;
const cursor: string | null = connection.cursor;
const added: string[] = connection.calculateSubscribe(["news", "chat"]);
const version: string = ChannelStreamConnection.version;
console.log(transport, cursor, added, version);

function show(event: ChannelStreamEvent): string | undefined {
  switch (event.type) {
    case "message":
      return `${event.user}: ${String(event.message?.text)}`;
    case "message:edit":
      return event.edited;
    case "message:delete":
      return event.uuid;
    case "presence":
      return event.message.action;
    case "user_state_change":
      return event.message.changed.map(({ key }) => key).join();
    default:
      return event satisfies never;
  }
}

class Chat extends ChannelStreamConnection {
  override listenOpenedCallback(): void {
    this.subscribe(["lobby"]);
  }
}
new Chat().disconnect();

// @ts-expect-error: there is no such type of request
connection.addMutator("conect", () => {});
// @ts-expect-error: a name, not a list of names
connection.username = ["ann"];
// @ts-expect-error: there is no such reason
const gap: Gap = { channel: "news", reason: "lost" };
// @ts-expect-error: a gap is in a channel, or among a user's private messages
const nowhere: Gap = { reason: "floor" };

async function backEnd(): Promise<void> {
  const token: string = await new Signer("secret").sign();
  const backend = new Backend({ url: "http://127.0.0.1:8000", secret: token });
  await backend.configureChannels({ news: { store_history: true, history_ttl: null }, lobby: null });
  const { conn_id, cursor, channels_info } = await backend.connect({ username: "ann", channels: ["news"] });
  const [{ uuid, duplicate }] = await backend.postMessages({ user: "bob", channel: "news", message: { text: "hi" } });
  await backend.editMessages({ uuid, channel: "news", message: { text: "hello" } });
  await backend.deleteMessages({ uuid, channel: "news" });
  const { messages, has_more } = await backend.history({ user: "ann", limit: 10, before: cursor });
  const { changed_state } = await backend.setUserState({ user: "ann", user_state: { mood: "ok" } });
  const known: boolean = await backend.disconnect(conn_id);
  console.log(channels_info.channels.news.history[0].cursor, duplicate, messages[0].edited, has_more, changed_state, known);
  try {
    await backend.forgetUser("ann");
    await backend.forgetChannel("news");
  } catch (error) {
    if (error instanceof BackendError && error.retryAfterSeconds !== null) console.log(error.status, error.body.user);
  }

  // @ts-expect-error: who says it?
  await backend.postMessages({ channel: "news" });
  // @ts-expect-error: a channel or a user
  await backend.history({ limit: 10 });
  // @ts-expect-error: state is flat
  await backend.setUserState({ user: "ann", user_state: { mood: { good: true } } });
}
void backEnd();

/** The name by which pages import the client from the push server: as it was in release 0.7, without the signer. */
export { ChannelStreamConnection } from "./channelstream.js";

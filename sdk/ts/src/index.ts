export { Client } from "./client.js";
export { HearthError, ServerError } from "./errors.js";
export type { Room } from "./room.js";
export type { Published, Serve, Stored } from "./serve.js";
export type {
  Arguments, Asks, Cipher, ClientOptions, Contract, DataOf, Encryption, ErrorData, Handshake, Message, Name, Phase, Position, Receives,
  ReplyOf, Requests, ResyncData, RoomOptions, RoomPhase, RoomStatus, Sends, State, Unrecovered, WaitOptions, WebSocketConstructor,
  WebSocketLike,
} from "./types.js";

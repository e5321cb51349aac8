import type { Position } from "./types.js";

/** A message that a client has published to a room of `hearth serve`. */
export interface Published<D = any> {
  room: string;
  /** The sender, as the server knows it. */
  from: { user?: string; client: string };
  data: D;
}

/** A message in the history of a room of `hearth serve`. */
export interface Stored extends Position {
  event: string;
  data: any;
}

/**
 * The events of `hearth serve` with room rules, for the type parameter of Client. docs/server.md
 * describes them.
 *
 * ```ts
 * const client = new Client<Serve>({ url, credentials: { token } });
 * client.on("published", ({ from, data }) => show(from.user, data));
 * await client.request("publish", { room: "chat:tea", data: "hello" });
 * ```
 */
export interface Serve<D = any> {
  receive: { published: Published<D> };
  request: {
    /** Sends data to all members of a room. */
    publish(message: { room: string; data: D }): void;
    /** Returns messages of the history: those after a position, or the newest. */
    history(query: { room: string; limit?: number; after?: Position }): Position & { room: string; messages: Stored[]; unrecovered?: true };
    /** Returns how many members a room has; `more` if there may be more. */
    presence(query: { room: string }): { room: string; clients: number; more: boolean };
    /** Joins the room of a grant. */
    grant(grant: { grant: string }): { room: string };
  };
}

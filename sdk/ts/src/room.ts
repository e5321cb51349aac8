import { HearthError, serverError } from "./errors.js";
import { Listeners, wait } from "./listeners.js";
import type { Position, RoomOptions, RoomStatus, WaitOptions } from "./types.js";

/**
 * A room that a client has joined or wants to join; Client.join returns it. The client joins it
 * again after each loss of the connection, until leave or until the server rejects it.
 */
export class Room {
  /** The name of the room. */
  readonly name: string;
  #status: RoomStatus = { phase: "joining" };
  #listeners = new Listeners<[RoomStatus]>();
  #leave: () => void;

  /** @internal The position of the last message. */
  at: Position | undefined;
  /** @internal The id of the join that is under way. */
  join: string | undefined;
  /** @internal The join under way is the first on this connection. */
  fresh = false;
  /** @internal The client was a member before. */
  member = false;
  /** @internal How many recovered messages are still to come, and the position after them. */
  left = 0;
  /** @internal */
  end: Position | undefined;
  /** @internal The server could not decide. */
  failed = false;
  /** @internal */
  last: number;

  /** @internal */
  constructor(name: string, options: RoomOptions, leave: () => void) {
    this.name = name;
    this.at = options.after;
    this.last = options.last ?? 0;
    this.#leave = leave;
  }

  /** The present status. */
  get status(): RoomStatus {
    return this.#status;
  }

  /** The position of the last message; undefined if the room has no history. */
  get position(): Position | undefined {
    return this.at;
  }

  /** Calls f when the status changes. Returns a function that ends this. */
  onStatus(f: (status: RoomStatus) => void): () => void {
    return this.#listeners.add(f);
  }

  /**
   * Waits until the client is a member. It rejects if the room was rejected or left, and by the
   * options; without a timeout it waits for ever.
   */
  ready(options: WaitOptions = {}): Promise<void> {
    return wait<void>(options, (resolve, reject) => {
      const look = ({ phase, error }: RoomStatus) => {
        if (phase === "joined" || phase === "recovering") resolve();
        else if (phase !== "joining") reject(error ?? new HearthError("left", `the room ${this.name} was left`));
      };
      look(this.#status);
      return this.onStatus(look);
    });
  }

  /**
   * Leaves the room, and ends this object: to join again, call Client.join. Messages of the room
   * that are on their way still arrive.
   */
  leave(): void {
    this.#leave();
  }

  /** @internal */
  set(status: RoomStatus, onError: (error: unknown) => void): void {
    this.#status = status;
    this.#listeners.call(onError, status);
  }
}

/** What rooms need of their client. */
export interface RoomsOwner {
  /** Sends a message on the present connection. Returns its id. */
  send(event: string, data: unknown): string;
  onError(error: unknown): void;
}

/** How many rooms are in one join, so that it is smaller than any reasonable limit for messages. */
const maxJoin = 32;

/**
 * How long a client waits at least before it joins a room again for which the server could not
 * decide.
 */
const failedPause = 5000;

/** The rooms of a client, and the protocol of joins. */
export class Rooms {
  #owner: RoomsOwner;
  #rooms = new Map<string, Room>();
  /** Names of rooms that were left, and that a session that is resumed may still have. */
  #left = new Set<string>();
  /** Whether the server answers joins; undefined if the client is not connected. */
  #extension: boolean | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(owner: RoomsOwner) {
    this.#owner = owner;
  }

  add(name: string, options: RoomOptions): Room {
    const known = this.#rooms.get(name);
    if (known) return known;
    const room: Room = new Room(name, options, () => this.#remove(room));
    this.#rooms.set(name, room);
    this.#left.delete(name);
    if (this.#extension !== undefined) this.#join([room], true);
    return room;
  }

  #remove(room: Room): void {
    const { name } = room;
    if (this.#rooms.get(name) !== room) return;
    this.#rooms.delete(name);
    if (this.#extension !== undefined) this.#send("leave", [name]);
    else this.#left.add(name);
    this.#set(room, { phase: "left" });
  }

  #all(): Room[] {
    return [...this.#rooms.values()];
  }

  /** Returns the positions of rooms. */
  positions(rooms = this.#all()): Record<string, Position> {
    return Object.fromEntries(rooms.filter((r) => r.at).map((r) => [r.name, r.at!]));
  }

  /** Joins all rooms on a new connection. resumed is the answer of a session that was resumed. */
  connected(extension: boolean, resumed: any): void {
    this.#extension = extension;
    const rooms = this.#all();
    if (resumed) {
      const names: string[] = (resumed.joined ?? []).map((j: any) => j.room);
      const wantsLast = (r: Room | undefined) => r && !r.member && r.last && !r.at; // only for rooms that it is not in
      const leave = names.filter((name) => this.#left.has(name) || wantsLast(this.#rooms.get(name)));
      if (leave.length) this.#send("leave", leave);
      for (const r of rooms) if (names.includes(r.name) && !leave.includes(r.name)) r.join = "resumed";
      this.joined("resumed", resumed);
    }
    this.#left.clear();
    // A callback may have joined rooms, or left some.
    this.#join(rooms.filter((r) => r.status.phase === "joining" && !r.join && !r.failed), true);
  }

  /** Makes all rooms wait for the next connection. */
  disconnected(): void {
    clearTimeout(this.#timer);
    this.#timer = this.#extension = undefined;
    for (const r of this.#all()) {
      r.join = undefined;
      r.failed = r.fresh = false;
      if (r.status.phase !== "joining") this.#set(r, { phase: "joining" });
    }
  }

  /** Ends all rooms. */
  close(error: Error): void {
    this.disconnected();
    const rooms = this.#all();
    this.#rooms.clear();
    for (const r of rooms) this.#set(r, { phase: "left", error });
  }

  #set(room: Room, status: RoomStatus): void {
    room.set(status, (error) => this.#owner.onError(error));
  }

  #send(event: string, rooms: string[], more: object = {}): string {
    return this.#owner.send(event, { rooms, ...more });
  }

  #join(rooms: Room[], fresh = false): void {
    for (let i = 0; i < rooms.length; i += maxJoin) {
      const some = rooms.slice(i, i + maxJoin);
      const last = Object.fromEntries(some.filter((r) => r.last && !r.member && !r.at).map((r) => [r.name, r.last]));
      const id = this.#send("join", some.map((r) => r.name), { positions: this.positions(some), last });
      for (const r of some) {
        r.join = id;
        r.fresh = fresh;
        r.failed = false;
        r.left = 0;
        if (!this.#extension) this.#joined(r, {}); // there is no answer
      }
    }
  }

  /** Handles the answer to a join. */
  joined(id: string, answer: any): void {
    const each = (list: any[] | undefined, f: (room: Room, entry: any) => void) =>
      list?.forEach((entry) => {
        const room = this.#rooms.get(entry.room);
        if (room?.join === id) f(room, entry);
      });
    each(answer?.joined, (room, entry) => this.#joined(room, entry));
    each(answer?.rejected, (room, { code }) => this.#rejected(room, serverError({ code, message: `the join of ${room.name} was rejected` })));
  }

  #joined(r: Room, { offset, epoch, recovered, unrecovered }: any): void {
    const had = r.at;
    const at: Position | undefined = epoch ? { offset, epoch } : undefined;
    r.join = undefined;
    if (r.fresh && had && had.epoch === epoch && offset > had.offset && !recovered && !unrecovered) {
      // The server had made the client a member before, so the join has recovered nothing.
      this.#send("leave", [r.name]);
      return this.#join([r]);
    }
    r.fresh = false;
    if (!(had && at) && (had || r.member)) unrecovered ??= "lost";
    r.member = true;
    if (recovered && !unrecovered) {
      // The position moves with the messages: the connection may be lost before they are here.
      r.left = recovered;
      r.end = at;
      return this.#set(r, { phase: "recovering", recovered });
    }
    r.at = at;
    this.#set(r, unrecovered ? { phase: "joined", unrecovered } : { phase: "joined" });
  }

  #rejected(r: Room, error: Error & { code?: string }): void {
    r.join = undefined;
    if (error.code === "internal") {
      r.failed = true;
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined;
        this.#join(this.#all().filter((r) => r.failed));
      }, failedPause * (1 + Math.random()));
      return;
    }
    this.#rooms.delete(r.name);
    this.#set(r, { phase: "rejected", error });
  }

  /** Handles an error in answer to a join. Returns whether it was one. */
  failed(id: string, error: Error): boolean {
    const rooms = this.#all().filter((r) => r.join === id);
    if (rooms.length === 1) this.#rejected(rooms[0]!, error);
    else for (const r of rooms) this.#join([r], r.fresh); // each for itself
    return rooms.length > 0;
  }

  /** Joins rooms again that the server has taken from the client. */
  interrupted(names: string[]): void {
    const rooms = names.flatMap((name) => this.#rooms.get(name) ?? []).filter((r) => !r.join && !r.failed);
    for (const r of rooms) this.#set(r, { phase: "joining" });
    this.#join(rooms.filter((r) => this.#rooms.get(r.name) === r));
  }

  /** Notes the position of a message. Returns false if the message is a duplicate. */
  received(name: string | undefined, at: Position | undefined): boolean {
    const r = this.#rooms.get(name!);
    if (!r || !at) return true;
    // Before the answer to a join, the message is from an earlier membership, or one that the server
    // gave. The join recovers the message, or the room begins after it.
    if (r.join && !r.at) return true;
    if (r.at && (r.join || (r.at.epoch === at.epoch && at.offset <= r.at.offset))) return false;
    r.at = at;
    r.left--;
    return true;
  }

  /** Ends the recovery of a room whose missed messages have arrived. */
  recovered(name: string | undefined): void {
    const r = this.#rooms.get(name!);
    if (r?.status.phase !== "recovering") return;
    const same = r.at?.epoch === r.end?.epoch;
    if (r.left > 0 && !(same && r.at!.offset >= r.end!.offset)) return;
    if (same && r.at!.offset < r.end!.offset) r.at = r.end;
    this.#set(r, { phase: "joined" });
  }
}

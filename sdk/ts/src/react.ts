import { useCallback, useEffect, useRef, useSyncExternalStore } from "react";
import type { Client } from "./client.js";
import type { Room } from "./room.js";
import type { Message, Name, Receives, RoomOptions, RoomStatus, State } from "./types.js";

/** Returns the state of a client, and renders again when it changes. */
export function useConnection(client: Client<any>): State {
  const subscribe = useCallback((changed: () => void) => client.onState(changed), [client]);
  const get = () => client.state;
  return useSyncExternalStore(subscribe, get, get);
}

/**
 * Calls f for each message of an event while the component is mounted. f may change with each
 * rendering.
 */
export function useEvent<C, E extends Name<Receives<C>>>(client: Client<C>, event: E, f: (data: Receives<C>[E], message: Message) => void): void {
  const latest = useRef(f);
  useEffect(() => {
    latest.current = f;
  });
  useEffect(() => client.on(event, (data, message) => latest.current(data, message)), [client, event]);
}

const joining: RoomStatus = { phase: "joining" };

/** How many components use a room. */
const users = new WeakMap<Room, number>();

/**
 * Joins a room while a component is mounted, and returns its status. Several components may use one
 * room: the client leaves it after the last of them. The options are those of the first.
 */
export function useRoom(client: Client<any>, name: string, options?: RoomOptions): RoomStatus {
  const first = useRef(options);
  const current = useRef<Room>(undefined);
  const subscribe = useCallback(
    (changed: () => void) => {
      const room = client.join(name, first.current);
      current.current = room;
      users.set(room, (users.get(room) ?? 0) + 1);
      const off = room.onStatus(changed);
      return () => {
        off();
        users.set(room, users.get(room)! - 1);
        // Not at once: another component may mount in the same rendering.
        queueMicrotask(() => users.get(room) || room.leave());
      };
    },
    [client, name],
  );
  const get = () => (current.current?.name === name ? current.current.status : joining);
  return useSyncExternalStore(subscribe, get, () => joining);
}

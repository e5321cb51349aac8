import { HearthError } from "./errors.js";
import type { WaitOptions } from "./types.js";

/** Functions that are called with the same arguments. */
export class Listeners<A extends unknown[]> {
  #all = new Set<{ f: (...args: A) => unknown }>();

  /** Adds f. Returns a function that removes it. */
  add(f: (...args: A) => unknown): () => void {
    const entry = { f }; // so that the same function can be added twice
    this.#all.add(entry);
    return () => void this.#all.delete(entry);
  }

  /** Calls all functions that are there now. Errors that they throw, also later, go to onError. */
  call(onError: (error: unknown) => void, ...args: A): void {
    for (const entry of [...this.#all]) {
      if (!this.#all.has(entry)) continue;
      try {
        const result = entry.f(...args);
        if (result instanceof Promise) result.catch(onError);
      } catch (error) {
        onError(error);
      }
    }
  }
}

/**
 * Returns a promise that also ends by the options. start gets the functions that end it, and
 * returns a function that is called when it has ended. The promise may be dropped: its rejection is
 * never unhandled.
 */
export function wait<T>(
  { timeout, signal }: WaitOptions,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => () => void,
): Promise<T> {
  const promise = new Promise<T>((resolve, reject) => {
    let done = false;
    let stop: (() => void) | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const end = () => {
      done = true;
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      stop?.();
    };
    const fail = (error: unknown) => {
      reject(error);
      end();
    };
    const abort = () => fail(signal!.reason);
    if (signal?.aborted) return abort();
    signal?.addEventListener("abort", abort);
    if (timeout) timer = setTimeout(() => fail(new HearthError("timeout", `no answer within ${timeout} ms`)), timeout);
    stop = start((value) => {
      resolve(value);
      end();
    }, fail);
    if (done) end();
  });
  promise.catch(() => {});
  return promise;
}

interface Timer {
  at: number;
  f: () => void;
}

const real = { setTimeout, clearTimeout, setImmediate, now: performance.now };

/** Lets everything run that is ready. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => real.setImmediate(resolve));
}

/** A clock in place of the timers and performance.now. It moves only when it is told to. */
export class Clock {
  #now = 1000;
  #timers = new Map<object, Timer>();

  constructor() {
    const g = globalThis as any;
    g.setTimeout = (f: () => void, ms = 0) => {
      const handle = { unref() {}, ref() {} };
      this.#timers.set(handle, { at: this.#now + Math.max(0, ms), f });
      return handle;
    };
    g.clearTimeout = (handle: object) => void this.#timers.delete(handle);
    performance.now = () => this.#now;
  }

  get now(): number {
    return this.#now;
  }

  /** How many timers wait. */
  get timers(): number {
    return this.#timers.size;
  }

  /** How long until the next timer. */
  get next(): number {
    return Math.min(...[...this.#timers.values()].map((t) => t.at)) - this.#now;
  }

  /** Lets time pass, and calls the timers at their times. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const due = [...this.#timers].filter(([, t]) => t.at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.#now = Math.max(this.#now, due[1].at);
      due[1].f();
      await settle();
    }
    this.#now = end;
  }

  /**
   * Lets time pass while the program is stopped: timers that are due are called afterwards, late.
   */
  async sleep(ms: number): Promise<void> {
    await settle();
    this.#now += ms;
    await this.advance(0);
  }

  restore(): void {
    Object.assign(globalThis, { setTimeout: real.setTimeout, clearTimeout: real.clearTimeout });
    performance.now = real.now;
  }
}

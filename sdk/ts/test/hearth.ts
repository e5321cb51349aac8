// Starts a real server for tests: `hearth serve`, built from this repository.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

// This file runs from build/test.
const repository = new URL("../../../../", import.meta.url).pathname;

let binary: string | undefined;

/** Builds the server once for this process. */
function build(): string {
  if (binary) return binary;
  const dir = mkdtempSync(join(tmpdir(), "hearth-sdk-"));
  process.on("exit", () => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, "hearth");
  execFileSync("go", ["build", "-buildvcs=false", "-o", file, "./cmd/hearth"], { cwd: repository, stdio: "inherit" });
  return (binary = file);
}

/** A running server. */
export class Hearth {
  url = "";
  #child: ChildProcess;
  #exited: Promise<void>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = new Promise((resolve) => child.once("exit", () => resolve()));
  }

  /** Starts a server, on any free port unless the address is given. */
  static async start(options: string[] = [], listen = "127.0.0.1:0"): Promise<Hearth> {
    const child = spawn(build(), ["serve", "--listen", listen, "--log-format", "json", "--drain", "0s", ...options], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const server = new Hearth(child);
    const lines: string[] = [];
    await new Promise<void>((resolve, reject) => {
      for (const input of [child.stdout!, child.stderr!]) {
        createInterface({ input }).on("line", (line) => {
          lines.push(line);
          const address = /http:\/\/(127\.0\.0\.1:\d+)/.exec(line)?.[1];
          if (!address || server.url) return;
          server.url = `ws://${address}/ws`;
          resolve();
        });
      }
      child.once("error", reject);
      child.once("exit", () => reject(new Error(`the server ended:\n${lines.join("\n")}`)));
    });
    return server;
  }

  get listen(): string {
    return new URL(this.url).host;
  }

  /** Ends the server, and waits until it has. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    this.#child.kill(signal);
    if (signal === "SIGTERM" || signal === "SIGKILL") await this.#exited;
  }

  /** Stops the process, or lets it run again. */
  freeze(frozen: boolean): void {
    this.#child.kill(frozen ? "SIGSTOP" : "SIGCONT");
  }
}

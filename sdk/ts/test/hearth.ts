// Builds programs of this repository, and starts `hearth serve`.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The root of this repository. This file runs from build/test. */
export const repository = fileURLToPath(new URL("../../../../", import.meta.url));

const binaries = new Map<string, string>();

/** Builds a program of this repository, once for this process. Returns its file. */
export function build(program: string): string {
  const known = binaries.get(program);
  if (known) return known;
  const dir = mkdtempSync(join(tmpdir(), "hearth-sdk-"));
  process.on("exit", () => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, basename(program));
  execFileSync("go", ["build", "-buildvcs=false", "-o", file, program], { cwd: repository, stdio: "inherit" });
  binaries.set(program, file);
  return file;
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
    const child = spawn(build("./cmd/hearth"), ["serve", "--listen", listen, "--log-format", "json", "--drain", "0s", ...options], {
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

// Compiles the tests and runs them: node scripts/test.mjs [name …], as in client rooms.
import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
rmSync(`${root}build`, { recursive: true, force: true });
execFileSync("npx", ["--no-install", "tsc", "-p", "tsconfig.test.json"], { cwd: root, stdio: "inherit" });

const names = process.argv.slice(2);
const files = readdirSync(`${root}build/test`)
  .filter((file) => file.endsWith(".test.js") && (!names.length || names.includes(file.split(".")[0])))
  .map((file) => `build/test/${file}`);
const flags = ["--enable-source-maps", "--test", "--test-timeout=120000"];
// The package needs Node 22. Node 20 has the same WebSocket behind a flag, so that the tests run
// with the Node of Debian.
if (Number(process.versions.node.split(".")[0]) < 22) flags.unshift("--experimental-websocket");
process.exit(spawnSync(process.execPath, [...flags, ...files], { cwd: root, stdio: "inherit" }).status ?? 1);

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { publint } from "publint";

// This file runs from build/test.
const root = fileURLToPath(new URL("../..", import.meta.url));

test("the package, installed into an empty project", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "hearth-package-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const run = (command: string, ...args: string[]) => execFileSync(command, args, { cwd: dir, encoding: "utf8" });
  const npm = (...args: string[]) => run("npm", ...args, "--no-audit", "--no-fund", "--offline", "--loglevel=error");

  execFileSync("npm", ["run", "build"], { cwd: root });
  const [packed] = JSON.parse(execFileSync("npm", ["pack", "--json", `--pack-destination=${dir}`], { cwd: root, encoding: "utf8" }));
  const files: string[] = packed.files.map((f: { path: string }) => f.path);
  assert.ok(files.includes("README.md"));
  for (const file of files) assert.match(file, /^(package\.json|README\.md|dist\/[a-z]+\.(js|d\.ts))$/);
  assert.deepEqual((await publint({ pkgDir: root })).messages.filter((m) => m.type === "error" || m.type === "warning"), []);

  writeFileSync(join(dir, "package.json"), '{"name": "empty", "type": "module", "private": true}');
  npm("install", join(dir, packed.filename));
  writeFileSync(join(dir, "app.ts"), `
    import { Client, HearthError } from "@hearthws/client";
    import { encryption } from "@hearthws/client/encryption";
    import { FakeServer } from "@hearthws/client/testing";
    const server = new FakeServer();
    server.on("double", (n: number) => 2 * n);
    const client = new Client<{ request: { double(n: number): number } }>({ url: "ws://test", WebSocket: server.WebSocket });
    await client.connect();
    const four: number = await client.request("double", 2);
    client.close();
    const keys = await encryption().begin();
    console.log(four, keys.publicKey.length, new HearthError("a", "b").code);
  `);
  // The declarations compile in a project without Node's types and without React.
  const tsc = join(root, "node_modules/.bin/tsc");
  run(tsc, "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "--types", "", "app.ts");
  await build({ entryPoints: [join(dir, "app.ts")], absWorkingDir: dir, bundle: true, format: "esm", outfile: join(dir, "app.js") });
  assert.equal(run("node", "app.js"), "4 88 a\n");

  // The React entry point, with the React of this repository.
  for (const name of ["react", "@types", "csstype"]) symlinkSync(join(root, "node_modules", name), join(dir, "node_modules", name));
  writeFileSync(join(dir, "hooks.ts"), 'export { useRoom } from "@hearthws/client/react";');
  run(tsc, "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "--types", "", "hooks.ts");
  await build({ entryPoints: [join(dir, "hooks.ts")], absWorkingDir: dir, bundle: true, format: "esm", outfile: join(dir, "hooks.js") });
});

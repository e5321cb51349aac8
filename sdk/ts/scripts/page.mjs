// Bundles the client for the demo page of hearth serve, which has no build step. With --check it
// fails if the bundle in the repository is not that of src.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const file = fileURLToPath(new URL("../../../internal/app/page/client.js", import.meta.url));
const { outputFiles } = await build({
  stdin: { contents: 'export { Client } from "./src/index.ts";', resolveDir: fileURLToPath(new URL("..", import.meta.url)) },
  bundle: true,
  format: "esm",
  target: "es2022",
  write: false,
  banner: { js: "// Made from sdk/ts by `npm run page`. Do not edit." },
});
// Without the names of files, which esbuild writes as comments.
const text = outputFiles[0].text.replace(/^\/\/ src\/.*\n/gm, "");
if (process.argv[2] !== "--check") writeFileSync(file, text);
else if (readFileSync(file, "utf8") !== text) {
  console.error("internal/app/page/client.js is not up to date: run npm run page in sdk/ts");
  process.exitCode = 1;
}

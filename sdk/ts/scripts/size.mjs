// Prints how large the client is in a page, minified and gzipped, and fails if the core is too
// large.
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
const limits = { index: 6 << 10, encryption: 1 << 10, react: 1 << 10 };

for (const [name, limit] of Object.entries(limits)) {
  const { outputFiles } = await build({
    entryPoints: [`${root}dist/${name}.js`], bundle: true, minify: true, format: "esm", target: "es2022", write: false, external: ["react"],
  });
  const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  console.log(`${name}: ${size} bytes, limit ${limit}`);
  if (size > limit) process.exitCode = 1;
}

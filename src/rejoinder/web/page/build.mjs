// Prints the page's script:  node build.mjs NODE_MODULES
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(`${process.argv[2]}/`);
const { outputFiles } = require("esbuild").buildSync({
  entryPoints: [fileURLToPath(new URL("main.ts", import.meta.url))],
  bundle: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  minify: true,
  legalComments: "none",
  write: false,
  absWorkingDir: fileURLToPath(new URL("..", import.meta.url)),
  banner: { js: "// Built by scripts/build_page.py from the modules in page/." },
});
process.stdout.write(outputFiles[0].text);

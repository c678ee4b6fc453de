import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

// Names carry no content hash: `dist` is committed, so its diffs must be readable, and the
// dispatcher serves every file with an ETag.
const names = {
  entryFileNames: "[name].js",
  chunkFileNames: "[name].js",
  assetFileNames: "[name][extname]",
};

export default defineConfig({
  base: "./",
  resolve: {
    // See src/daily-stub.ts: nothing of Daily's call machine is used, and it would be fetched
    // from the network.
    alias: { "@daily-co/daily-js": here("src/daily-stub.ts") },
  },
  build: {
    target: "es2022",
    outDir: "dist",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    // The licences of what is bundled ask to come along.
    license: { fileName: "licenses.md" },
    rollupOptions: { input: { app: here("index.html") }, output: names },
  },
  worker: { format: "es", rollupOptions: { output: names } },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
});

// Builds the page into a scratch directory and compares it with the committed `dist`, byte by byte.

import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const root = fileURLToPath(new URL("../", import.meta.url));
const committed = join(root, "dist");
const scratch = await mkdtemp(join(tmpdir(), "callbox-dist-"));
try {
  await build({ root, logLevel: "warn", build: { outDir: scratch, emptyOutDir: true } });
  const differences = await compare(await contents(committed), await contents(scratch));
  for (const difference of differences) console.error(difference);
  if (differences.length) {
    console.error("web/dist is not what web/src builds; run `npm ci && npm run build` in web/ and commit dist");
    process.exitCode = 1;
  } else {
    console.log("web/dist is what web/src builds");
  }
} finally {
  await rm(scratch, { recursive: true, force: true });
}

/** @param {string} directory @returns {Promise<Map<string, Buffer>>} */
async function contents(directory) {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(await Promise.all(files.map(async (file) => /** @type {[string, Buffer]} */ ([relative(directory, file), await readFile(file)]))));
}

/** @param {Map<string, Buffer>} old @param {Map<string, Buffer>} fresh */
async function compare(old, fresh) {
  const differences = [];
  for (const name of [...new Set([...old.keys(), ...fresh.keys()])].sort()) {
    const [was, is] = [old.get(name), fresh.get(name)];
    if (!was) differences.push(`missing   dist/${name} (${is?.length} bytes)`);
    else if (!is) differences.push(`left over dist/${name} (${was.length} bytes)`);
    else if (!was.equals(is)) {
      const at = was.findIndex((byte, i) => byte !== is[i]);
      differences.push(`differs   dist/${name}: ${was.length} bytes committed, ${is.length} built, first difference at byte ${at < 0 ? was.length : at}`);
    }
  }
  return differences;
}

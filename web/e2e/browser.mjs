// Chromium with a microphone that plays a file.

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const HELLO = fileURLToPath(new URL("fixtures/hello.wav", import.meta.url));

/**
 * Runs `use` with a browser whose microphone repeats: quiet, one sentence, quiet.
 * @param {{ executable?: string, headed?: boolean }} options
 * @param {(browser: import("playwright-core").Browser) => Promise<void>} use
 */
export async function withBrowser({ executable = "/usr/bin/chromium", headed = false }, use) {
  const scratch = await mkdtemp(join(tmpdir(), "callbox-e2e-"));
  const microphone = join(scratch, "microphone.wav");
  await writeFile(microphone, padded(await readFile(HELLO), 4, 5));
  const browser = await chromium.launch({
    executablePath: executable,
    headless: !headed,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--autoplay-policy=no-user-gesture-required",
      "--use-fake-ui-for-media-stream",
      "--use-fake-device-for-media-stream",
      `--use-file-for-fake-audio-capture=${microphone}`,
    ],
  });
  try {
    await use(browser);
  } finally {
    await browser.close();
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Puts silence around the samples of a plain 16-bit mono wav. @param {Buffer} wav @param {number} before @param {number} behind seconds */
function padded(wav, before, behind) {
  const rate = wav.readUInt32LE(24);
  const data = wav.indexOf("data", 12, "latin1");
  const samples = wav.subarray(data + 8, data + 8 + wav.readUInt32LE(data + 4));
  const body = Buffer.concat([Buffer.alloc(before * rate * 2), samples, Buffer.alloc(behind * rate * 2)]);
  const head = Buffer.from(wav.subarray(0, data + 8));
  head.writeUInt32LE(head.length - 8 + body.length, 4);
  head.writeUInt32LE(body.length, data + 4);
  return Buffer.concat([head, body]);
}

// Calls a bot with a real browser.
//
//   CALLBOX_URL=http://127.0.0.1:7860/ CALLBOX_KEY=cbk_pub_… npm run e2e
//   npm run e2e -- --stand-in          no dispatcher needed; also tries what goes wrong
//   npm run e2e -- --stand-in --bot ws://127.0.0.1:8080/ws     the same with a real bot behind it
//
// Further: --only <scenario>, --headed, --no-shots; CALLBOX_CHROMIUM for another browser,
// CALLBOX_BOOT_S for machines that need longer than 120 s until the greeting.

import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { withBrowser } from "./browser.mjs";
import * as scenarios from "./scenarios.mjs";
import { standIn } from "./stand-in.mjs";

const { values } = parseArgs({
  options: { "stand-in": { type: "boolean" }, only: { type: "string" }, headed: { type: "boolean" }, bot: { type: "string" }, "no-shots": { type: "boolean" } },
});
const KEY = "cbk_pub_test_0123456789abcdef";
/** How long the stand-in's own bot greets. */
const GREETING_MS = 900;
const SHOTS = fileURLToPath(new URL("../test-results/", import.meta.url));
const bootMs = Number(process.env["CALLBOX_BOOT_S"] ?? 120) * 1000;
const names = values["stand-in"] ? Object.keys(scenarios) : ["wholeCall"];
const chosen = names.filter((name) => !values.only || name === values.only);
let failures = 0;

if (!values["stand-in"] && !process.env["CALLBOX_URL"]) {
  console.error("set CALLBOX_URL to the dispatcher's address, or pass --stand-in");
  process.exit(2);
}
if (!values["no-shots"]) await mkdir(SHOTS, { recursive: true });

const executable = process.env["CALLBOX_CHROMIUM"];
await withBrowser({ ...(executable ? { executable } : {}), headed: values.headed ?? false }, async (browser) => {
  for (const name of chosen) await attempt(browser, name);
});
process.exitCode = failures || chosen.length === 0 ? 1 : 0;

/** @param {import("playwright-core").Browser} browser @param {string} name */
async function attempt(browser, name) {
  const started = Date.now();
  const dispatcher = values["stand-in"] ? await standIn({ key: KEY, bot: values.bot ?? null }) : null;
  const url = dispatcher?.url ?? process.env["CALLBOX_URL"] ?? "";
  const page = await browser.newPage({ viewport: { width: 1180, height: 900 } });
  const complaints = watch(page, url);
  const shot = async (/** @type {string} */ title) => {
    if (!values["no-shots"]) await page.screenshot({ path: `${SHOTS}/${name}-${title}.png`, fullPage: true });
  };
  const key = dispatcher ? KEY : (process.env["CALLBOX_KEY"] ?? null);
  try {
    const scenario = /** @type {Record<string, Function>} */ (scenarios)[name];
    const facts = await scenario?.({ page, url, key, bootMs, shot, greetingMs: values["stand-in"] && !values.bot ? GREETING_MS : null }, dispatcher);
    if (complaints.length) throw new Error(complaints.join("\n"));
    console.log(`ok    ${name} (${Date.now() - started} ms)${facts ? ` ${JSON.stringify(facts)}` : ""}`);
  } catch (error) {
    failures++;
    await shot("failed").catch(() => undefined);
    console.error(`FAIL  ${name}:`, error, complaints);
  } finally {
    await page.close();
    await dispatcher?.close();
  }
}

/** The page must neither break nor talk to anybody but the dispatcher. @param {import("playwright-core").Page} page @param {string} url */
function watch(page, url) {
  /** @type {string[]} */
  const complaints = [];
  const host = new URL(url).host;
  page.on("pageerror", (error) => complaints.push(`error in the page: ${error.stack ?? error}`));
  page.on("request", (request) => {
    const asked = new URL(request.url());
    if (!["blob:", "data:"].includes(asked.protocol) && asked.host !== host) complaints.push(`the page asked ${asked.host}`);
  });
  page.on("console", (message) => {
    if (/Content Security Policy/i.test(message.text())) complaints.push(message.text());
    if (process.env["CALLBOX_E2E_VERBOSE"]) console.log(`  [page] ${message.text()}`);
  });
  return complaints;
}

// What the page must do, each as one function over a fresh page.

import assert from "node:assert/strict";

/**
 * @typedef {import("playwright-core").Page} Page
 * @typedef {Awaited<ReturnType<typeof import("./stand-in.mjs").standIn>>} StandIn
 * @typedef {{ page: Page, url: string, key: string | null, bootMs: number, greetingMs: number | null, shot: (name: string) => Promise<void> }} Stage
 */

const MOMENTS = ["accepted", "started", "ready", "joined", "audible", "ended"];

/** The whole call: greeting heard, speech answered, hang-up, all moments shown. @param {Stage} stage */
export async function wholeCall(stage) {
  const { page, shot } = stage;
  await open(stage);
  assert.equal(new URL(page.url()).hash, "", "the key must leave the address bar");
  await shot("1-before");
  await press(page, "Call");
  await until(page, "greeting heard", stage.bootMs, () => window.callbox.utterances.bot.length > 0);
  await shot("2-greeting");
  await until(page, "speech answered", 60_000, () => answerMs(window.callbox.utterances) !== null);
  await shot("3-answered");
  const facts = await page.evaluate(() => ({
    answerMs: answerMs(window.callbox.utterances),
    heardAfterMs: window.callbox.heardAfterMs,
    greeting: window.callbox.utterances.bot[0],
  }));
  // Played at the wrong rate it would be a third shorter, or longer.
  const { greeting } = facts;
  if (stage.greetingMs && greeting?.to) {
    const off = Math.abs(greeting.to - greeting.from - stage.greetingMs);
    assert.ok(off < 0.2 * stage.greetingMs, `the greeting took ${greeting.to - greeting.from} ms`);
  }
  await press(page, "Hang up");
  await until(page, "session ended", 60_000, () => window.callbox.session?.state === "ended");
  await shot("4-over");
  await checkWaterfall(page);
  const session = await page.evaluate(() => window.callbox.session);
  assert.equal(await page.evaluate(() => window.callbox.trouble), null, "a call that went well shows no trouble");
  assert.equal(await page.locator("#fact-id").textContent(), session?.id);
  await page.getByRole("button", { name: "Call again" }).waitFor();
  return { heardAfterMs: facts.heardAfterMs, answerMs: facts.answerMs, stages_ms: session?.stages_ms, accelerator: session?.accelerator, start: session?.start };
}

/** A second call works as the first did. @param {Stage} stage */
export async function callAgain(stage) {
  const { page } = stage;
  await open(stage);
  await press(page, "Call");
  await until(page, "greeting heard", stage.bootMs, () => window.callbox.utterances.bot.length > 0);
  const first = await page.evaluate(() => window.callbox.session?.id);
  await hangUp(page);
  await press(page, "Call again");
  await until(page, "greeting heard again", stage.bootMs, () => window.callbox.utterances.bot.length > 0);
  assert.notEqual(await page.evaluate(() => window.callbox.session?.id), first);
  const focused = () => page.evaluate(() => document.activeElement?.id);
  assert.equal(await focused(), "hang-up", "the focus goes where the call can be ended");
  await hangUp(page);
  assert.equal(await focused(), "call", "the focus goes back");
}

/** Where no key is needed, none is asked for. @param {Stage} stage @param {StandIn} dispatcher */
export async function noKeyNeeded(stage, dispatcher) {
  dispatcher.settings.key = null;
  await open({ ...stage, key: null });
  assert.equal(await stage.page.getByLabel("Key", { exact: true }).isVisible(), false);
  await press(stage.page, "Call");
  await until(stage.page, "call is live", 15_000, () => window.callbox.phase === "live");
  await hangUp(stage.page);
}

/** Muted is muted: the bot gets only silence, so it does not answer. @param {Stage} stage */
export async function muted(stage) {
  const { page } = stage;
  await open(stage);
  await press(page, "Call");
  await until(page, "greeting heard", stage.bootMs, () => window.callbox.utterances.bot.length > 0);
  await press(page, "Mute");
  await until(page, "microphone silent", 10_000, () => window.callbox.levels.you === 0);
  await press(page, "Muted");
  await until(page, "microphone back", 30_000, () => window.callbox.levels.you > 0.01);
  await hangUp(page);
}

/** @param {Stage} stage @param {StandIn} dispatcher */
export async function wrongKey(stage, dispatcher) {
  const { page, shot } = stage;
  await open({ ...stage, key: "cbk_pub_wrong_key" });
  await press(page, "Call");
  await alert(page, "The key was not accepted");
  await shot("wrong-key");
  await page.getByLabel("Key", { exact: true }).fill("not a key");
  await press(page, "Use this key");
  await page.getByText("This does not look like one.").waitFor();
  await page.getByLabel("Key", { exact: true }).fill(stage.key ?? "");
  await press(page, "Use this key");
  await press(page, "Call");
  await until(page, "call is live", 15_000, () => window.callbox.phase === "live");
  await hangUp(page);
  assert.equal(dispatcher.sessions.size > 0, true);
}

/** @param {Stage} stage @param {StandIn} dispatcher */
export async function everyMachineTaken(stage, dispatcher) {
  const text = "all 4 machines of this host are taken";
  dispatcher.settings.refuse = { status: 429, body: { error: text, code: "429", info: text, detail: text } };
  await open(stage);
  await press(stage.page, "Call");
  await alert(stage.page, "All 4 machines of this host are taken.");
  await stage.shot("taken");
}

/** @param {Stage} stage @param {StandIn} dispatcher */
export async function startFails(stage, dispatcher) {
  dispatcher.settings.failStart = "the machine did not answer within 30 s";
  await open(stage);
  await press(stage.page, "Call");
  await alert(stage.page, "The machine did not answer within 30 s.");
  await until(stage.page, "call is over", 10_000, () => window.callbox.phase === "over");
  await stage.shot("start-failed");
}

/** @param {Stage} stage */
export async function microphoneRefused(stage) {
  await stage.page.addInitScript(() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("Permission denied", "NotAllowedError"));
  });
  await open(stage);
  await press(stage.page, "Call");
  await alert(stage.page, "The microphone is not available");
  await stage.shot("microphone-refused");
  assert.equal(await stage.page.evaluate(() => window.callbox.session), null, "no session may be started");
}

/** @param {Stage} stage */
export async function hangUpWhileStarting(stage) {
  await open(stage);
  await press(stage.page, "Call");
  await until(stage.page, "session known", 10_000, () => window.callbox.session !== null);
  await stage.shot("starting");
  await hangUp(stage.page);
}

/** @param {Stage} stage @param {StandIn} dispatcher */
export async function botHangsUp(stage, dispatcher) {
  dispatcher.settings.botHangsUpAfterMs = 1_500;
  await open(stage);
  await press(stage.page, "Call");
  await until(stage.page, "session ended", 15_000, () => window.callbox.session?.state === "ended");
  assert.equal(await stage.page.evaluate(() => window.callbox.trouble), null);
  await stage.page.getByText("the bot left the call", { exact: true }).waitFor();
  await stage.page.getByRole("button", { name: "Call again" }).waitFor();
}

/** @param {Stage} stage @param {StandIn} dispatcher */
export async function dispatcherGone(stage, dispatcher) {
  await open(stage);
  await press(stage.page, "Call");
  await until(stage.page, "call is live", 15_000, () => window.callbox.phase === "live");
  await dispatcher.vanish();
  await alert(stage.page, "The connection was lost");
}

/** @param {Stage} stage */
async function open({ page, url, key }) {
  await page.addInitScript(() => {
    // How long the first answer to a caller's utterance took; null while there is none.
    Object.assign(window, {
      answerMs: (/** @type {import("./surface.d.ts").Utterances} */ { bot, you }) => {
        const greeting = bot[0];
        if (!greeting) return null;
        for (const said of you) {
          if (said.to === null || said.from < greeting.from) continue;
          const end = said.to;
          const answer = bot.find((spoken) => spoken.from > end);
          if (answer) return answer.from - end;
        }
        return null;
      },
    });
  });
  await page.goto(key ? `${url}#key=${key}` : url);
  await page.getByRole("button", { name: "Call", exact: true }).waitFor();
}

/** @param {Page} page */
async function hangUp(page) {
  await press(page, "Hang up");
  await until(page, "session ended", 30_000, () => window.callbox.session?.state === "ended");
}

/** @param {Page} page */
async function checkWaterfall(page) {
  for (const moment of MOMENTS) {
    const row = page.locator(`#waterfall tr[data-moment=${moment}]`);
    assert.equal(await row.getAttribute("data-state"), "done", `the waterfall shows ${moment}`);
    assert.match((await row.locator(".time").textContent()) ?? "", /^[\d.]+ (ms|s|min)/, `${moment} has its time`);
  }
}

/** @param {Page} page @param {string | RegExp} name */
async function press(page, name) {
  await page.getByRole("button", typeof name === "string" ? { name, exact: true } : { name }).click();
}

/** @param {Page} page @param {string} text */
async function alert(page, text) {
  await page.getByRole("alert").filter({ hasText: text }).waitFor({ timeout: 15_000 });
}

/**
 * Waits until something holds in the page; fails at once when the page shows trouble instead.
 * @param {Page} page @param {string} what @param {number} ms @param {() => boolean} condition
 */
async function until(page, what, ms, condition) {
  const started = Date.now();
  // Made here and not in the page, whose policy forbids to make code out of text.
  const settled = /** @type {() => boolean} */ (new Function(`return (${condition})() || window.callbox.trouble !== null`));
  await page.waitForFunction(settled, undefined, { timeout: ms, polling: 50 }).catch(() => undefined);
  if (await page.evaluate(condition)) return;
  const seen = await page.evaluate(() => JSON.stringify({ ...window.callbox }));
  throw new Error(`waited ${Date.now() - started} ms in vain for: ${what}; the page has ${seen}`);
}

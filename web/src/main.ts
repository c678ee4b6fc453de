/** The page: what the buttons do, and where what happens is shown. */

import "./style.css";
import { type Info, type Session, fetchInfo } from "./api";
import { Call, type CallEvents, type Phase } from "./call";
import { span } from "./format";
import { forgetKey, looksLikeKey, storeKey, takeKey } from "./key";
import { otherTrouble, type Trouble, unreachable } from "./trouble";
import { LogView } from "./view/log";
import { TraceView } from "./view/trace";
import { WaterfallView } from "./view/waterfall";
import { emptyChart, layOut } from "./waterfall";
import { acceleratorWord, endLine, startWord, statusLine } from "./words";

const page = {
  version: element("version", HTMLElement),
  botField: element("bot-field", HTMLElement),
  bot: element("bot", HTMLSelectElement),
  keyForm: element("key-form", HTMLFormElement),
  key: element("key", HTMLInputElement),
  keyHelp: element("key-help", HTMLElement),
  trouble: element("trouble", HTMLElement),
  troubleTitle: element("trouble-title", HTMLElement),
  troubleText: element("trouble-text", HTMLElement),
  troubleHint: element("trouble-hint", HTMLElement),
  call: element("call", HTMLButtonElement),
  mute: element("mute", HTMLButtonElement),
  hangUp: element("hang-up", HTMLButtonElement),
  status: element("status", HTMLElement),
  firstSound: element("first-sound", HTMLElement),
  heard: element("heard", HTMLElement),
  copyId: element("copy-id", HTMLButtonElement),
};
const waterfall = new WaterfallView(element("waterfall", HTMLTableElement));
const trace = new TraceView(element("trace", HTMLCanvasElement));
const log = new LogView(
  element("log", HTMLOListElement),
  element("log-scroller", HTMLElement),
  element("log-count", HTMLElement),
);

let info: Info | null = null;
let key = takeKey();
let call: Call | null = null;
let trouble: Trouble | null = null;

void begin();

async function begin(): Promise<void> {
  waterfall.draw(emptyChart());
  page.call.addEventListener("click", () => (info ? startCall() : void load()));
  page.hangUp.addEventListener("click", () => void call?.hangUp());
  page.mute.addEventListener("click", toggleMute);
  page.copyId.addEventListener("click", () => void copyId());
  page.keyForm.addEventListener("submit", useKey);
  addEventListener("pagehide", () => call?.abandon());
  addEventListener("hashchange", () => {
    key = takeKey();
    offerKey();
  });
  requestAnimationFrame(drawWhileWaiting);
  await load();
}

async function load(): Promise<void> {
  clearTrouble();
  try {
    info = await fetchInfo();
  } catch {
    showTrouble(unreachable());
    page.call.disabled = false;
    label(page.call, "Try again");
    return;
  }
  label(page.call, "Call");
  page.version.textContent = `version ${info.version}`;
  const bots = info.bots.filter((bot) => bot.transports.includes("websocket"));
  page.bot.replaceChildren(...bots.map((bot) => new Option(bot.name, bot.name)));
  page.botField.hidden = bots.length < 2;
  page.call.disabled = bots.length === 0;
  if (bots.length === 1) element("call-title", HTMLElement).textContent = `Call ${bots[0]?.name}`;
  offerKey();
  enter("idle");
  if (bots.length === 0) page.status.textContent = "No bot here takes calls from a browser (transport websocket).";
}

function startCall(): void {
  if (call && !call.isOver) return;
  if (info?.auth && !key) {
    offerKey();
    page.key.focus();
    return;
  }
  clearTrouble();
  log.clear();
  trace.clear();
  showSession(null);
  page.heard.textContent = "";
  page.firstSound.textContent = "–";
  waterfall.draw(emptyChart());
  setMuted(false);
  // A call that is over may still report its session's end; by then another may have begun.
  const mine =
    <A extends unknown[]>(show: (...args: A) => void) =>
    (...args: A) => {
      if (call === current) show(...args);
    };
  let current: Call;
  const events: CallEvents = {
    phase: mine(enter),
    session: mine(showSession),
    log: mine((entry) => log.add(entry, acceptedAt(current.session))),
    levels: mine((levels) => trace.add(levels)),
    heard: mine((ms) => {
      page.heard.textContent = `You heard it in this browser ${span(ms)} after the request.`;
    }),
    trouble: mine(showTrouble),
  };
  try {
    current = new Call(page.bot.value, key, events);
  } catch (error) {
    // A browser without Web Audio, or one that has no audio device at all.
    showTrouble(otherTrouble(error));
    return;
  }
  call = current;
  void current.run();
}

function enter(phase: Phase | "idle"): void {
  document.body.dataset["phase"] = phase;
  const calling = phase !== "idle" && phase !== "over";
  const focusMoves = document.activeElement === page.call || document.activeElement === page.hangUp || document.activeElement === page.mute;
  page.call.hidden = calling;
  page.hangUp.hidden = !calling;
  page.mute.hidden = phase !== "live";
  page.bot.disabled = calling;
  label(page.call, phase === "over" && call?.session ? "Call again" : "Call");
  // The button that had the focus may be gone; its counterpart takes over.
  if (focusMoves) (calling ? page.hangUp : page.call).focus();
  showStatus(phase);
  if (phase === "over") drawChart();
}

function showSession(session: Session | null): void {
  fact("fact-id", session?.id);
  fact("fact-state", session?.state);
  fact("fact-provider", session?.provider);
  fact("fact-accelerator", acceleratorWord(session?.accelerator ?? null));
  fact("fact-start", startWord(session?.start ?? null));
  page.copyId.hidden = !session;
  showStages(session);
  element("fact-end-row", HTMLElement).hidden = !endLine(session);
  fact("fact-end", endLine(session));
  if (!session) return;
  showStatus(call?.phase ?? "idle");
  drawChart();
}

function showStages(session: Session | null): void {
  const stages = session?.start_stages ?? [];
  element("fact-stages-row", HTMLElement).hidden = stages.length === 0;
  element("fact-stages", HTMLElement).replaceChildren(
    ...stages.map(({ name, ms }) => {
      const time = document.createElement("b");
      time.textContent = span(ms);
      const stage = document.createElement("span");
      stage.append(`${name} `, time);
      return stage;
    }),
  );
}

function showStatus(phase: Phase | "idle"): void {
  const text = statusLine(phase, call?.session ?? null);
  if (page.status.textContent !== text) page.status.textContent = text;
}

/** Between two messages of the dispatcher the bar that is waited for grows. */
function drawWhileWaiting(): void {
  if (call && !call.isOver && call.requestedAt !== null && call.session?.stages_ms.audible == null) drawChart();
  requestAnimationFrame(drawWhileWaiting);
}

function drawChart(): void {
  if (!call || call.requestedAt === null) return;
  if (call.isOver && !call.session) {
    waterfall.draw(emptyChart());
    page.firstSound.textContent = "–";
    return;
  }
  const stages = call.session?.stages_ms ?? {};
  const now = call.isOver ? null : call.elapsed();
  waterfall.draw(layOut(stages, now));
  const audible = stages.audible ?? null;
  page.firstSound.textContent = audible !== null ? span(audible) : now !== null ? span(now) : "–";
}

function showTrouble(fresh: Trouble): void {
  trouble = fresh;
  page.troubleTitle.textContent = fresh.title;
  page.troubleText.textContent = fresh.text;
  page.troubleHint.textContent = fresh.hint ?? "";
  page.troubleHint.hidden = !fresh.hint;
  page.trouble.hidden = false;
  if (!fresh.needsKey) return;
  key = null;
  forgetKey();
  page.keyForm.hidden = false;
  page.key.focus();
}

function clearTrouble(): void {
  trouble = null;
  page.trouble.hidden = true;
}

function offerKey(): void {
  page.keyForm.hidden = !info?.auth || key !== null;
}

function useKey(event: SubmitEvent): void {
  event.preventDefault();
  const given = page.key.value.trim();
  if (!looksLikeKey(given)) {
    page.keyHelp.textContent = "A key begins with cbk_pub_ or cbk_prv_. This does not look like one.";
    page.key.setAttribute("aria-invalid", "true");
    return;
  }
  page.key.removeAttribute("aria-invalid");
  page.key.value = "";
  key = given;
  storeKey(given);
  clearTrouble();
  offerKey();
  page.call.focus();
}

function toggleMute(): void {
  setMuted(page.mute.getAttribute("aria-pressed") !== "true");
}

function setMuted(muted: boolean): void {
  page.mute.setAttribute("aria-pressed", String(muted));
  page.mute.textContent = muted ? "Muted" : "Mute";
  if (call && !call.isOver) call.setMuted(muted);
}

async function copyId(): Promise<void> {
  if (!call?.session) return;
  await navigator.clipboard.writeText(call.session.id).catch(() => undefined);
  page.copyId.textContent = "Copied";
  setTimeout(() => (page.copyId.textContent = "Copy"), 1_500);
}

function acceptedAt(session: Session | null): number | null {
  const accepted = session?.moments.accepted;
  return accepted ? Date.parse(accepted) : null;
}

function fact(id: string, text: string | null | undefined): void {
  element(id, HTMLElement).textContent = text || "–";
}

function label(button: HTMLButtonElement, text: string): void {
  const span = button.querySelector("span");
  if (span) span.textContent = text;
}

function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`the page has no ${type.name} named ${id}`);
  return found;
}

/** What tests read; nothing of the page depends on it. */
const surface = {
  get phase() {
    return call?.phase ?? "idle";
  },
  get session() {
    return call?.session ?? null;
  },
  get trouble() {
    return trouble;
  },
  get levels() {
    return call?.levels() ?? { bot: 0, you: 0 };
  },
  get utterances() {
    return { bot: call?.bot.utterances ?? [], you: call?.you.utterances ?? [] };
  },
  get heardAfterMs() {
    return call?.heardAfterMs ?? null;
  },
};
Object.assign(window, { callbox: surface });

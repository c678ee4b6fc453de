/** Where the bars of the waterfall lie. Pure; `view/waterfall.ts` draws it. */

import { MOMENTS, type Moment, type StagesMs } from "./api";
import { span, tick } from "./format";

export type RowState = "done" | "waiting" | "pending" | "missed";

export interface Row {
  moment: Moment | "ended";
  state: RowState;
  /** Edges of the bar as shares of the axis, 0 to 1. */
  from: number;
  to: number;
  /** When it came, counted from the request; empty while it has not. */
  text: string;
}

export interface Chart {
  /** Milliseconds that the whole axis stands for. */
  spanMs: number;
  ticks: { at: number; text: string }[];
  rows: Row[];
}

/** What must have come before a moment can: machine and client make their ways side by side. */
const CAUSES: Record<Moment, Moment[]> = {
  accepted: [],
  started: ["accepted"],
  ready: ["started"],
  joined: ["accepted"],
  audible: ["ready", "joined"],
};

/**
 * Lays the chart out. `nowMs` is the time since the request while moments may still come, and
 * null once none can. Every bar begins where the last of its moment's causes came.
 */
export function layOut(stages: StagesMs, nowMs: number | null): Chart {
  const known = MOMENTS.map((moment) => stages[moment]).filter((at) => at != null);
  const latest = Math.max(0, ...known);
  const complete = known.length === MOMENTS.length;
  const spanMs = complete ? snug(latest) : nowMs === null ? snug(Math.max(latest, stages.ended ?? 0)) : roomy(Math.max(nowMs, latest));
  const rows = MOMENTS.map((moment) => {
    const causes = CAUSES[moment].map((cause) => stages[cause] ?? null);
    const from = Math.max(0, ...causes.filter((at) => at !== null));
    const at = stages[moment] ?? null;
    if (at !== null) return bar(moment, "done", Math.min(from, at), at, spanMs);
    if (nowMs === null) return bar(moment, "missed", 0, 0, spanMs);
    if (causes.includes(null)) return bar(moment, "pending", 0, 0, spanMs);
    return bar(moment, "waiting", from, Math.max(from, nowMs), spanMs);
  });
  rows.push(endRow(stages.ended ?? null, latest, spanMs));
  return { spanMs, ticks: ticksOf(spanMs), rows };
}

/** A chart with nothing in it, for before the first call. */
export function emptyChart(): Chart {
  const rows = [...MOMENTS, "ended" as const].map((moment) => bar(moment, "pending", 0, 0, 1000));
  return { spanMs: 1000, ticks: ticksOf(1000), rows };
}

function bar(moment: Row["moment"], state: RowState, from: number, to: number, spanMs: number): Row {
  const share = (ms: number) => Math.min(1, ms / spanMs);
  return {
    moment,
    state,
    from: share(from),
    to: share(to),
    text: state === "done" ? span(to) : state === "missed" ? "never" : "",
  };
}

/** A call may last minutes: its end lies beyond the axis, and its bar runs off the edge. */
function endRow(at: number | null, latest: number, spanMs: number): Row {
  if (at === null) return bar("ended", "pending", 0, 0, spanMs);
  return { moment: "ended", state: "done", from: latest / spanMs, to: Math.min(1, at / spanMs), text: span(at) };
}

/** The axis while the chart grows: moves in a few large steps, not with every frame. */
function roomy(ms: number): number {
  const least = 500;
  let size = least;
  for (let i = 0; size < ms * 1.02; i++) size *= i % 2 === 0 ? 2 : 2.5;
  return size;
}

/**
 * The axis once it stands still: a little longer than what it shows, which is the way to the first
 * sound, or to the end where there was none.
 */
function snug(ms: number): number {
  return Math.max(20, ms) * 1.04;
}

function ticksOf(spanMs: number): Chart["ticks"] {
  const raw = spanMs / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 2.5, 5, 10].find((n) => n * power >= raw) ?? 10) * power;
  const ticks = [];
  for (let i = 0; i * step <= spanMs * 0.97; i++) {
    ticks.push({ at: (i * step) / spanMs, text: tick(i * step) });
  }
  return ticks;
}

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

/**
 * Lays the chart out. `nowMs` is the time since the request while moments may still come, and
 * null once none can. Every bar begins where the latest earlier moment came, so the bars of
 * moments that follow from one another form a staircase.
 */
export function layOut(stages: StagesMs, nowMs: number | null): Chart {
  const came = MOMENTS.map((moment) => stages[moment] ?? null);
  const known = came.filter((at): at is number => at !== null);
  const latest = Math.max(0, ...known);
  const complete = known.length === MOMENTS.length;
  const spanMs = complete ? snug(latest) : nowMs === null ? snug(Math.max(latest, stages.ended ?? 0)) : roomy(Math.max(nowMs, latest));
  const rows: Row[] = [];
  let waiting = nowMs !== null;
  MOMENTS.forEach((moment, i) => {
    const at = came[i] ?? null;
    if (at !== null) {
      const from = Math.max(0, ...known.filter((other) => other < at));
      rows.push(bar(moment, "done", from, at, spanMs));
    } else if (waiting) {
      waiting = false;
      rows.push(bar(moment, "waiting", latest, Math.max(latest, nowMs ?? 0), spanMs));
    } else {
      rows.push(bar(moment, nowMs === null ? "missed" : "pending", 0, 0, spanMs));
    }
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

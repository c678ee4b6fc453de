import { describe, expect, it } from "vitest";
import { emptyChart, layOut } from "../src/waterfall";

const row = (chart: ReturnType<typeof layOut>, moment: string) => {
  const found = chart.rows.find((r) => r.moment === moment);
  if (!found) throw new Error(`no row ${moment}`);
  return found;
};

describe("the waterfall", () => {
  it("is a staircase: every bar begins where the latest earlier moment came", () => {
    const chart = layOut({ accepted: 0, started: 200, ready: 300, joined: 310, audible: 400 }, null);
    const edges = ["started", "ready", "joined", "audible"].map((m) => [row(chart, m).from, row(chart, m).to].map((x) => Math.round(x * chart.spanMs)));
    expect(edges).toEqual([[0, 200], [200, 300], [300, 310], [310, 400]]);
  });

  it("shows a client that joins before its machine runs from the request on", () => {
    const chart = layOut({ accepted: 0, started: 200, ready: 300, joined: 40, audible: 400 }, null);
    expect(row(chart, "joined")).toMatchObject({ from: 0, state: "done", text: "40 ms" });
    expect(row(chart, "started").from * chart.spanMs).toBeCloseTo(40);
  });

  it("lets only the first missing moment grow", () => {
    const chart = layOut({ accepted: 0, started: 200 }, 350);
    expect(chart.rows.map((r) => r.state)).toEqual(["done", "done", "waiting", "pending", "pending", "pending"]);
    expect(row(chart, "ready").to * chart.spanMs).toBeCloseTo(350);
  });

  it("keeps its axis still while it grows, except for a few steps", () => {
    const spans = new Set(Array.from({ length: 600 }, (_, i) => layOut({ accepted: 0 }, i * 100).spanMs));
    expect(spans.size).toBeLessThan(10);
  });

  it("says never for what did not come once the session is over", () => {
    const chart = layOut({ accepted: 0, started: 200, ended: 900 }, null);
    expect(row(chart, "audible")).toMatchObject({ state: "missed", text: "never" });
    expect(row(chart, "ended")).toMatchObject({ state: "done", text: "900 ms" });
    expect(chart.spanMs).toBeGreaterThan(900);
  });

  it("never leaves the axis", () => {
    for (const chart of [emptyChart(), layOut({}, 0), layOut({}, null), layOut({ accepted: 0, started: 1, ready: 2, joined: 3, audible: 4, ended: 60_000 }, 5)]) {
      for (const { from, to } of chart.rows) {
        expect(from).toBeGreaterThanOrEqual(0);
        expect(to).toBeLessThanOrEqual(1);
        expect(from).toBeLessThanOrEqual(to);
      }
      expect(chart.ticks.length).toBeGreaterThan(1);
      for (const { at } of chart.ticks) expect(at).toBeLessThan(1);
    }
  });
});

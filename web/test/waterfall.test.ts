import { describe, expect, it } from "vitest";
import { emptyChart, layOut } from "../src/waterfall";

const row = (chart: ReturnType<typeof layOut>, moment: string) => {
  const found = chart.rows.find((r) => r.moment === moment);
  if (!found) throw new Error(`no row ${moment}`);
  return found;
};

describe("the waterfall", () => {
  it("begins every bar where the last of its moment's causes came", () => {
    const chart = layOut({ accepted: 0, started: 200, ready: 300, joined: 40, audible: 400 }, null);
    const edges = ["started", "ready", "joined", "audible"].map((m) => [row(chart, m).from, row(chart, m).to].map((x) => Math.round(x * chart.spanMs)));
    expect(edges).toEqual([[0, 200], [200, 300], [0, 40], [300, 400]]);
    expect(row(chart, "joined")).toMatchObject({ state: "done", text: "40 ms" });
  });

  it("waits for a client that comes late", () => {
    const chart = layOut({ accepted: 0, started: 200, ready: 300, joined: 900, audible: 950 }, null);
    expect(row(chart, "audible").from * chart.spanMs).toBeCloseTo(900);
  });

  it("lets grow what can come next", () => {
    const states = (stages: Parameters<typeof layOut>[0]) => layOut(stages, 350).rows.map((r) => r.state).join(" ");
    expect(states({})).toBe("waiting pending pending pending pending pending");
    expect(states({ accepted: 0 })).toBe("done waiting pending waiting pending pending");
    expect(states({ accepted: 0, started: 200, joined: 40 })).toBe("done done waiting done pending pending");
    expect(states({ accepted: 0, started: 200, joined: 40, ready: 300 })).toBe("done done done done waiting pending");
    expect(row(layOut({ accepted: 0, started: 200 }, 350), "ready").to * 500).toBeCloseTo(350);
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

/** Draws the waterfall into the page's table. */

import type { Chart, Row } from "../waterfall";

const WORDS: Record<Row["moment"], { name: string; meaning: string }> = {
  accepted: { name: "accepted", meaning: "the request was taken" },
  started: { name: "started", meaning: "its machine runs" },
  ready: { name: "ready", meaning: "the bot can take the call" },
  joined: { name: "joined", meaning: "you are in" },
  audible: { name: "audible", meaning: "its first sound is out" },
  ended: { name: "ended", meaning: "nothing of it is left" },
};

interface Cells {
  row: HTMLTableRowElement;
  bar: HTMLElement;
  time: HTMLElement;
}

export class WaterfallView {
  private readonly cells = new Map<string, Cells>();
  private readonly axis: HTMLElement;
  private ticksShown = "";

  constructor(table: HTMLTableElement) {
    const body = table.tBodies[0] ?? table.createTBody();
    for (const moment of Object.keys(WORDS)) this.cells.set(moment, makeRow(body, moment as Row["moment"]));
    const axis = table.querySelector<HTMLElement>("[data-axis]");
    if (!axis) throw new Error("the waterfall has no axis");
    this.axis = axis;
  }

  draw(chart: Chart): void {
    for (const row of chart.rows) {
      const cells = this.cells.get(row.moment);
      if (!cells) continue;
      cells.row.dataset["state"] = row.state;
      cells.bar.style.left = percent(row.from);
      cells.bar.style.width = percent(Math.max(0, row.to - row.from));
      if (cells.time.textContent !== row.text) cells.time.textContent = row.text;
    }
    this.drawTicks(chart);
  }

  private drawTicks(chart: Chart): void {
    const shown = chart.ticks.map((t) => `${t.text}@${t.at.toFixed(4)}`).join();
    if (shown === this.ticksShown) return;
    this.ticksShown = shown;
    this.axis.replaceChildren(
      ...chart.ticks.map(({ at, text }) => {
        const tick = document.createElement("span");
        tick.textContent = text;
        tick.style.left = percent(at);
        return tick;
      }),
    );
  }
}

function makeRow(body: HTMLTableSectionElement, moment: Row["moment"]): Cells {
  const row = body.insertRow();
  row.dataset["moment"] = moment;
  row.dataset["state"] = "pending";
  const head = document.createElement("th");
  head.scope = "row";
  const name = document.createElement("span");
  name.className = "moment";
  name.textContent = WORDS[moment].name;
  const meaning = document.createElement("span");
  meaning.className = "meaning";
  meaning.textContent = WORDS[moment].meaning;
  head.append(name, meaning);
  row.append(head);
  const track = row.insertCell();
  track.className = "track";
  const bar = document.createElement("span");
  bar.className = "bar";
  track.append(bar);
  const time = row.insertCell();
  time.className = "time";
  return { row, bar, time };
}

function percent(share: number): string {
  return `${(share * 100).toFixed(3)}%`;
}

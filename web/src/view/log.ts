/** The session's log lines. */

import type { LogEntry } from "../api";
import { readableLine } from "../format";

/** A bot that writes without end must not fill the tab's memory. */
const MOST_LINES = 1_000;

export class LogView {
  constructor(
    private readonly list: HTMLOListElement,
    private readonly scroller: HTMLElement,
    private readonly count: HTMLElement,
  ) {}

  private total = 0;

  add(entry: LogEntry, acceptedAtMs: number | null): void {
    const follow = this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < 40;
    this.list.append(makeLine(entry, acceptedAtMs));
    while (this.list.childElementCount > MOST_LINES) this.list.firstElementChild?.remove();
    this.total++;
    this.count.textContent = this.total === 1 ? "1 line" : `${this.total} lines`;
    if (follow) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  clear(): void {
    this.total = 0;
    this.count.textContent = "";
    this.list.replaceChildren();
  }
}

function makeLine(entry: LogEntry, acceptedAtMs: number | null): HTMLLIElement {
  const line = document.createElement("li");
  line.dataset["source"] = entry.source;
  const { level, text } = readableLine(entry.text);
  if (level) line.dataset["level"] = level;
  const since = acceptedAtMs === null ? "" : `${((entry.at_ms - acceptedAtMs) / 1000).toFixed(3)}`;
  line.append(cell("at", since), cell("source", entry.source), cell("text", text));
  return line;
}

function cell(name: string, text: string): HTMLSpanElement {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}

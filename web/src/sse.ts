/** Server-sent events over fetch: unlike EventSource it can send the Authorization header. */

import { bearer, errorOf } from "./api";

export interface SseEvent {
  event: string;
  data: string;
}

/** Cuts a stream of text into events. Feed it pieces of any size. */
export class SseParser {
  private rest = "";
  private event = "";
  private data: string[] = [];

  feed(piece: string): SseEvent[] {
    const events: SseEvent[] = [];
    const lines = (this.rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    for (const line of lines) {
      const done = this.line(line);
      if (done) events.push(done);
    }
    return events;
  }

  private line(line: string): SseEvent | null {
    if (line === "") {
      const done = this.data.length
        ? { event: this.event || "message", data: this.data.join("\n") }
        : null;
      this.event = "";
      this.data = [];
      return done;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.event = value;
    else if (field === "data") this.data.push(value);
    return null;
  }
}

export interface Follow {
  url: string;
  token: string;
  event: string;
  /** Called with each event's parsed data. Answers whether this was the last one. */
  onData: (data: unknown) => boolean;
  signal: AbortSignal;
  /** Asked when the stream ends in good order: whether that was to be expected. */
  mayEnd?: () => boolean;
  /** Waits between two tries, in milliseconds; its length is the number of tries in a row. */
  retryMs?: number[];
}

/**
 * Follows one stream until its last event. A stream that breaks is opened again; a refusal (4xx)
 * is final.
 */
export async function follow(options: Follow): Promise<void> {
  const waits = options.retryMs ?? [250, 500, 1000, 2000, 4000];
  for (let failures = 0; !options.signal.aborted; ) {
    let error: unknown = new Error("the stream ended early");
    try {
      const { last, received } = await readOnce(options);
      if (last || options.mayEnd?.()) return;
      if (received) failures = 0;
    } catch (e) {
      if (options.signal.aborted) return;
      error = e;
      if (isRefusal(e)) throw e;
    }
    const wait = waits[failures++];
    if (wait === undefined) throw error;
    await pause(wait, options.signal);
  }
}

async function readOnce(options: Follow): Promise<{ last: boolean; received: boolean }> {
  const headers = bearer(options.token);
  headers.set("Accept", "text/event-stream");
  const response = await fetch(options.url, { headers, signal: options.signal, cache: "no-store" });
  if (!response.ok || !response.body) throw await errorOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new SseParser();
  let received = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { last: false, received };
    for (const { event, data } of parser.feed(value)) {
      if (event !== options.event) continue;
      received = true;
      if (options.onData(JSON.parse(data))) {
        void reader.cancel();
        return { last: true, received };
      }
    }
  }
}

function isRefusal(error: unknown): boolean {
  const status = (error as { status?: unknown }).status;
  return typeof status === "number" && status >= 400 && status < 500;
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

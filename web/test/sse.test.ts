import { afterEach, describe, expect, it, vi } from "vitest";
import { follow, SseParser } from "../src/sse";

describe("the parser", () => {
  const stream = 'retry: 10\n: hello\n\nevent: session\ndata: {"a":1}\n\ndata: x\r\ndata: y\r\n\r\nevent: log\n\n';
  const events = [
    { event: "session", data: '{"a":1}' },
    { event: "message", data: "x\ny" },
  ];

  it("reads events and passes over comments and empty ones", () => {
    expect(new SseParser().feed(stream)).toEqual(events);
  });

  it("does not care where the stream is cut", () => {
    for (let size = 1; size < 9; size++) {
      const parser = new SseParser();
      const found = [];
      for (let i = 0; i < stream.length; i += size) found.push(...parser.feed(stream.slice(i, i + size)));
      expect(found, `pieces of ${size}`).toEqual(events);
    }
  });
});

describe("following a stream", () => {
  afterEach(() => vi.unstubAllGlobals());
  const options = (onData: (data: unknown) => boolean) => ({
    url: "http://dispatcher/events",
    token: "secret",
    event: "session",
    signal: new AbortController().signal,
    retryMs: [0, 0],
    onData,
  });
  const answers = (...bodies: (() => Response)[]) => {
    const fetch = vi.fn(async () => (bodies.shift() ?? (() => new Response("")))());
    vi.stubGlobal("fetch", fetch);
    return fetch;
  };

  it("opens a stream again that broke, and stops at the last event", async () => {
    const fetch = answers(
      () => new Response('event: session\ndata: 1\n\nevent: other\ndata: 7\n\n'),
      () => new Response("event: session\ndata: 2\n\nevent: session\ndata: 3\n\n"),
    );
    const seen: unknown[] = [];
    await follow(options((data) => (seen.push(data), data === 2)));
    expect(seen).toEqual([1, 2]);
    expect(fetch).toHaveBeenCalledTimes(2);
  });

  it("takes a refusal for final", async () => {
    const fetch = answers(() => Response.json({ info: "not yours", code: "forbidden" }, { status: 403 }));
    await expect(follow(options(() => false))).rejects.toMatchObject({ status: 403, message: "not yours", code: "forbidden" });
    expect(fetch).toHaveBeenCalledTimes(1);
  });

  it("gives up after its tries", async () => {
    const fetch = answers();
    await expect(follow(options(() => false))).rejects.toThrow("ended early");
    expect(fetch).toHaveBeenCalledTimes(3);
  });
});

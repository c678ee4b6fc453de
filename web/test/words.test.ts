import { describe, expect, it } from "vitest";
import { Activity, meterHeight } from "../src/activity";
import { type Session, isWebsocketJoin, sessionIdOf } from "../src/api";
import { plainLine, readableLine, span, tick } from "../src/format";
import { keyInFragment, looksLikeKey } from "../src/key";
import { endTrouble, microphoneTrouble, startTrouble } from "../src/trouble";
import { statusLine } from "../src/words";

const session = (over: Partial<Session> = {}): Session => ({
  id: "s", bot: "parrot", transport: "websocket", provider: "local", state: "starting", end_reason: null,
  outcome: null, accelerator: null, start: null, moments: {}, stages_ms: { accepted: 0 }, ...over,
});

describe("numbers", () => {
  it.each([[0, "0 ms"], [0.42, "0.4 ms"], [9.96, "10 ms"], [86.6, "87 ms"], [999.6, "1.00 s"], [1240, "1.24 s"], [12_440, "12.4 s"], [59_960, "1 min 00 s"], [125_000, "2 min 05 s"]])("%d ms is %s", (ms, text) => {
    expect(span(ms)).toBe(text);
  });
  it("writes ticks short", () => {
    expect([0, 200, 1000, 1500, 2250].map(tick)).toEqual(["0", "200 ms", "1 s", "1.5 s", "2.25 s"]);
  });
});

describe("log lines", () => {
  it("lose colours and control characters", () => {
    expect(plainLine("\u001b[1m\u001b[32mINFO\u001b[0m a\tb\u0007\r")).toBe("INFO a\tb");
  });
});

describe("log records", () => {
  it("show level, message and exception", () => {
    const line = JSON.stringify({ time: "t", level: "ERROR", message: "it \u001b[1mbroke", exception: "Traceback\n  here\n" });
    expect(readableLine(line)).toEqual({ level: "error", text: "it broke\nTraceback\n  here" });
  });
  it("are told from lines that merely look like them", () => {
    expect(readableLine("{not json")).toEqual({ level: null, text: "{not json" });
    expect(readableLine('{"a":1}')).toEqual({ level: null, text: '{"a":1}' });
    expect(readableLine("plain")).toEqual({ level: null, text: "plain" });
  });
});

describe("keys", () => {
  it("are found in the fragment", () => {
    expect(keyInFragment("#key=cbk_pub_a_b")).toBe("cbk_pub_a_b");
    expect(keyInFragment("#x=1&key=%20cbk_pub_a_b")).toBe("cbk_pub_a_b");
    expect(keyInFragment("#")).toBeNull();
    expect(keyInFragment("#key=")).toBeNull();
  });
  it("are told from other things", () => {
    expect(looksLikeKey("cbk_pub_k1_s3cret")).toBe(true);
    expect(looksLikeKey("cbk_prv_k1_s3-cr_et")).toBe(true);
    expect(looksLikeKey("sk-123")).toBe(false);
  });
});

describe("tokens", () => {
  it("begin with the session's id", () => expect(sessionIdOf("a-b-c.00ff")).toBe("a-b-c"));
  it("come with an address", () => {
    expect(isWebsocketJoin({ wsUrl: "ws://h/ws/a", token: "a.b" })).toBe(true);
    expect(isWebsocketJoin({ dailyRoom: "x" })).toBe(false);
    expect(isWebsocketJoin(null)).toBe(false);
  });
});

describe("trouble", () => {
  it("shows what the dispatcher says, as a sentence", () => {
    expect(startTrouble(429, "all 4 machines are taken")).toMatchObject({ title: "Every machine is taken", text: "All 4 machines are taken.", needsKey: false });
    expect(startTrouble(401, "the key is not known").needsKey).toBe(true);
    expect(startTrouble(null, "Failed to fetch").title).toBe("The dispatcher does not answer");
  });
  it("knows why the microphone is missing", () => {
    expect(microphoneTrouble(new DOMException("", "NotAllowedError")).text).toMatch(/not allowed/);
    expect(microphoneTrouble(new DOMException("", "SecurityError")).hint).toMatch(/https/);
    expect(microphoneTrouble(new Error("odd")).text).toBe("odd");
  });
  it("is only made of sessions that failed", () => {
    const reason = { code: "start-failed", detail: "no machine" };
    expect(endTrouble(session({ end_reason: reason, outcome: "failed" }))?.text).toBe("No machine.");
    expect(endTrouble(session({ end_reason: reason, outcome: "completed" }))).toBeNull();
    expect(endTrouble(session())).toBeNull();
  });
});

describe("the status line", () => {
  it("follows the session while it is joined", () => {
    expect(statusLine("joining", session())).toMatch(/Starting a machine/);
    expect(statusLine("joining", session({ moments: { started: "t" } }))).toMatch(/Waiting for the bot/);
    expect(statusLine("joining", session({ moments: { started: "t", ready: "t" } }))).toMatch(/Connecting/);
    expect(statusLine("over", session({ state: "ending" }))).toMatch(/Clearing up/);
    expect(statusLine("over", session({ state: "ended" }))).toBe("The call is over.");
    expect(statusLine("over", null)).toBe("No call was made.");
  });
});

describe("activity", () => {
  it("joins sounds with short gaps and ends where the sound ended", () => {
    const activity = new Activity(0.1, 300);
    const levels: [number, number][] = [[0, 0], [0.2, 50], [0, 100], [0.3, 300], [0, 500], [0, 600], [0.5, 2000]];
    for (const [level, at] of levels) activity.update(level, at);
    activity.close();
    expect(activity.utterances).toEqual([{ from: 50, to: 300 }, { from: 2000, to: 2000 }]);
  });
  it("has a meter between 0 and 1", () => {
    expect(meterHeight(0)).toBe(0);
    expect(meterHeight(1)).toBe(1);
    expect(meterHeight(0.0316)).toBeCloseTo(0.5, 1);
  });
});

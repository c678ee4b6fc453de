import { describe, expect, it } from "vitest";
// @ts-expect-error plain JavaScript without declarations
import { audioFrame, messageFrame } from "../e2e/frames.mjs";
import { FrameSerializer, readFrame } from "../src/audio/serializer";

const pcm = (samples: number[]) => new Uint8Array(Int16Array.from(samples).buffer);

describe("frames", () => {
  it("keep the rate of their audio", () => {
    const frame = readFrame(audioFrame(pcm([1, -2, 300]), 16_000));
    expect(frame).toEqual({ kind: "audio", samples: Int16Array.of(1, -2, 300), rate: 16_000 });
  });

  it("carry messages", () => {
    expect(readFrame(messageFrame({ label: "rtvi-ai", text: "grüß" }))).toEqual({ kind: "message", json: '{"label":"rtvi-ai","text":"grüß"}' });
  });

  it("of other kinds are passed over", () => {
    expect(readFrame(Uint8Array.of(0x0a, 0x02, 0x12, 0x00))).toEqual({ kind: "other" });
    expect(readFrame(new Uint8Array(0))).toEqual({ kind: "other" });
  });

  it("that are cut off are refused", () => {
    const whole = audioFrame(pcm([1, 2, 3, 4]), 16_000) as Uint8Array;
    expect(() => readFrame(whole.subarray(0, whole.length - 4))).toThrow(/shorter/);
    expect(() => readFrame(Uint8Array.of(0x12, 0xff))).toThrow(/middle/);
  });
});

describe("the serializer", () => {
  it("hands frames on in the order in which they came", async () => {
    const serializer = new FrameSerializer();
    const late = new Blob([audioFrame(pcm([1]), 8000)]);
    let release = () => {};
    const gate = new Promise<void>((resolve) => (release = resolve));
    const read = late.arrayBuffer.bind(late);
    late.arrayBuffer = async () => (await gate, read());
    const order: number[] = [];
    const note = async (blob: Blob) => {
      const parsed = await serializer.deserialize(blob);
      if (parsed.type === "audio") order.push(serializer.rateOf(parsed.audio));
    };
    const both = [note(late), note(new Blob([audioFrame(pcm([2]), 44_100)]))];
    release();
    await Promise.all(both);
    expect(order).toEqual([8000, 44_100]);
  });

  it("goes on after a frame that it cannot read", async () => {
    const serializer = new FrameSerializer();
    await expect(serializer.deserialize(new Blob([Uint8Array.of(0x12, 0xff)]))).rejects.toThrow();
    const parsed = await serializer.deserialize(new Blob([messageFrame({ a: 1 })]));
    expect(parsed).toEqual({ type: "message", message: { a: 1 } });
  });
});

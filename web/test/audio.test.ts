import { describe, expect, it } from "vitest";
import { Playout } from "../src/audio/playout";
import { Resampler, toInt16 } from "../src/audio/resample";

const QUANTUM = 128;

function pull(playout: Playout, count: number): number[] {
  const heard: number[] = [];
  for (let i = 0; i < count; i++) {
    const out = new Float32Array(QUANTUM);
    playout.pull(out);
    heard.push(...out);
  }
  return heard;
}

const ones = (length: number) => new Float32Array(length).fill(0.5);

describe("the playout", () => {
  it("is silent until its cushion is full, then plays all without a hole", () => {
    const playout = new Playout(300, 4000, 1000);
    playout.push(ones(200));
    expect(pull(playout, 1).some((s) => s !== 0)).toBe(false);
    playout.push(ones(200));
    const heard = pull(playout, 4);
    expect(heard.filter((s) => s === 0.5)).toHaveLength(400);
    expect(heard.slice(0, 400).every((s) => s === 0.5)).toBe(true);
  });

  it("plays an utterance that is shorter than the cushion", () => {
    const playout = new Playout(1000, 4000, 1000);
    playout.push(ones(100));
    expect(pull(playout, 12).filter((s) => s === 0.5)).toHaveLength(100);
  });

  it("widens the cushion after a hole, not after a pause", () => {
    const playout = new Playout(200, 700, 1000);
    const speakAndRunDry = (quiet: number) => {
      playout.push(ones(800));
      pull(playout, 8 + quiet);
    };
    speakAndRunDry(2);
    speakAndRunDry(2);
    expect(playout.cushionSamples).toBe(400);
    speakAndRunDry(40);
    expect(playout.cushionSamples).toBe(700);
    speakAndRunDry(40);
    expect(playout.cushionSamples).toBe(700);
  });

  it("keeps the order of samples across chunks of odd sizes", () => {
    const playout = new Playout(1, 1, 1);
    const all = Float32Array.from({ length: 1000 }, (_, i) => i / 1024);
    for (let i = 0, size = 1; i < 1000; i += size++) playout.push(all.slice(i, i + size));
    const heard = pull(playout, 8).slice(0, 1000);
    expect(heard).toEqual([...all]);
  });
});

describe("the resampler", () => {
  const tone = (hz: number, rate: number, seconds = 0.5) => Float32Array.from({ length: rate * seconds }, (_, i) => Math.sin((2 * Math.PI * hz * i) / rate));
  const rms = (samples: Float32Array) => Math.sqrt(samples.reduce((sum, s) => sum + s * s, 0) / samples.length);
  const resampled = (hz: number, from: number, piece = QUANTUM) => {
    const resampler = new Resampler(from, 16_000);
    const input = tone(hz, from);
    const out: number[] = [];
    for (let i = 0; i < input.length; i += piece) out.push(...resampler.process(input.subarray(i, i + piece)));
    return Float32Array.from(out);
  };

  it.each([48_000, 44_100, 16_000])("lets speech at %i Hz pass at the right pace", (from) => {
    const out = resampled(1000, from);
    // The filter keeps back as much as it reaches to either side.
    expect(8000 - out.length).toBeGreaterThanOrEqual(0);
    expect(8000 - out.length).toBeLessThanOrEqual(24);
    expect(rms(out.subarray(200, -200))).toBeCloseTo(Math.SQRT1_2, 2);
    let crossings = 0;
    for (let i = 1; i < 7000; i++) if ((out[i - 1] ?? 0) < 0 && (out[i] ?? 0) >= 0) crossings++;
    expect(Math.abs(crossings - 437)).toBeLessThan(2);
  });

  it("raises the rate without a hole or a new pitch", () => {
    const resampler = new Resampler(16_000, 48_000);
    const input = tone(1000, 16_000);
    const out: number[] = [];
    for (let i = 0; i < input.length; i += 640) out.push(...resampler.process(input.subarray(i, i + 640)));
    expect(24_000 - out.length).toBeLessThanOrEqual(3 * 24);
    expect(rms(Float32Array.from(out.slice(200)))).toBeCloseTo(Math.SQRT1_2, 2);
    // A sine of 1 kHz obeys s[i-1] + s[i+1] = 2 cos(w) s[i]; a hole, a jump or another pitch does not.
    const twice = 2 * Math.cos((2 * Math.PI * 1000) / 48_000);
    const errors = out.slice(300, -1).map((s, i) => Math.abs((out[299 + i] ?? 0) + (out[301 + i] ?? 0) - twice * s));
    expect(Math.max(...errors)).toBeLessThan(0.003);
  });

  it("keeps out what the lower rate cannot carry", () => {
    expect(rms(resampled(11_000, 48_000).subarray(200))).toBeLessThan(0.003);
    expect(rms(resampled(15_000, 44_100).subarray(200))).toBeLessThan(0.003);
  });

  it("does not care how its input is cut", () => {
    expect(resampled(440, 44_100, 1000)).toEqual(resampled(440, 44_100, 128));
  });

  it("makes integers that do not wrap", () => {
    expect([...toInt16(Float32Array.of(-2, -1, 0, 1, 2))]).toEqual([-32768, -32768, 0, 32767, 32767]);
  });
});

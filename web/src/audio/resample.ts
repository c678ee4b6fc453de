/** From one sample rate to another: the microphone's to the bot's, the bot's to the speaker's. */

/** Taps on either side of an output sample, in samples of the lower rate. */
const REACH = 12;
/** Positions between two input samples for which the filter is worked out ahead. */
const PHASES = 128;

/** Changes the sample rate of a stream: a windowed-sinc filter, read at fractional positions. */
export class Resampler {
  private readonly step: number;
  private readonly taps: number;
  private readonly filters: Float32Array[];
  private history = new Float32Array(0);
  /** Position of the next output sample in `history`. */
  private position: number;

  constructor(inputRate: number, outputRate: number) {
    this.step = inputRate / outputRate;
    const scale = Math.max(1, this.step);
    this.taps = 2 * Math.ceil(REACH * scale);
    this.filters = Array.from({ length: PHASES + 1 }, (_, p) => filter(p / PHASES, this.taps, scale));
    this.position = this.taps / 2 - 1;
  }

  process(input: Float32Array): Float32Array {
    const all = new Float32Array(this.history.length + input.length);
    all.set(this.history);
    all.set(input, this.history.length);
    const output: number[] = [];
    let position = this.position;
    while (Math.floor(position) + this.taps / 2 < all.length) {
      output.push(this.sampleAt(all, position));
      position += this.step;
    }
    const keepFrom = Math.max(0, Math.floor(position) - this.taps / 2 + 1);
    this.history = all.slice(keepFrom);
    this.position = position - keepFrom;
    return Float32Array.from(output);
  }

  private sampleAt(all: Float32Array, position: number): number {
    const whole = Math.floor(position);
    const taps = this.filters[Math.round((position - whole) * PHASES)] ?? new Float32Array(0);
    const first = whole - this.taps / 2 + 1;
    let sum = 0;
    for (let i = 0; i < this.taps; i++) sum += (all[first + i] ?? 0) * (taps[i] ?? 0);
    return sum;
  }
}

/** Samples that travelled as 16-bit integers, from -1 to 1. */
export function fromInt16(samples: Int16Array): Float32Array {
  return Float32Array.from(samples, (sample) => sample / 0x8000);
}

/** Samples as 16-bit integers, the form that travels. */
export function toInt16(samples: Float32Array): Int16Array {
  const out = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) {
    const s = Math.max(-1, Math.min(1, samples[i] ?? 0));
    out[i] = Math.round(s < 0 ? s * 0x8000 : s * 0x7fff);
  }
  return out;
}

function filter(fraction: number, taps: number, scale: number): Float32Array {
  const out = new Float32Array(taps);
  let sum = 0;
  for (let i = 0; i < taps; i++) {
    const distance = i - taps / 2 + 1 - fraction;
    // A little below half the lower rate, so that the filter's slope lies outside of the band.
    const x = (distance * 0.94) / scale;
    const window = Math.abs(distance) < taps / 2 ? 0.5 + 0.5 * Math.cos((2 * Math.PI * distance) / taps) : 0;
    out[i] = (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x)) * window;
    sum += out[i] ?? 0;
  }
  return out.map((tap) => tap / sum);
}

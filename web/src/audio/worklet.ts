/** Runs in the audio thread: one processor for each direction. */

import { fromInt16, Resampler, toInt16 } from "./resample";
import { Playout } from "./playout";

// TypeScript has no library for the audio worklet's scope.
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare const sampleRate: number;
declare function registerProcessor(name: string, processor: new (options: Options) => unknown): void;

interface Options {
  processorOptions?: { rate: number; chunk: number };
}

/** Microphone to 16-bit chunks at `rate`, posted as ArrayBuffers of `chunk` samples. */
class Capture extends AudioWorkletProcessor {
  private readonly resampler: Resampler;
  private readonly chunk: Int16Array;
  private filled = 0;

  constructor(options: Options) {
    super();
    const { rate, chunk } = options.processorOptions ?? { rate: 16_000, chunk: 320 };
    this.resampler = new Resampler(sampleRate, rate);
    this.chunk = new Int16Array(chunk);
  }

  process(inputs: Float32Array[][]): boolean {
    const mono = inputs[0]?.[0];
    if (!mono) return true;
    for (const sample of toInt16(this.resampler.process(mono))) {
      this.chunk[this.filled++] = sample;
      if (this.filled === this.chunk.length) {
        const buffer = this.chunk.slice().buffer;
        this.port.postMessage(buffer, [buffer]);
        this.filled = 0;
      }
    }
    return true;
  }
}

/** A piece of what the bot says. */
export interface Heard {
  samples: Int16Array;
  rate: number;
}

/**
 * 16-bit chunks of any rate to the speaker. Asked to "drain", it answers "drained" once everything
 * was played.
 */
class Play extends AudioWorkletProcessor {
  private readonly playout = new Playout(
    Math.round(sampleRate * 0.04),
    Math.round(sampleRate * 0.32),
    Math.round(sampleRate * 0.25),
  );

  private resampler: { rate: number; stream: Resampler } | null = null;
  private draining = false;

  constructor() {
    super();
    this.port.onmessage = (event: MessageEvent<Heard | "drain">) => {
      if (event.data === "drain") this.draining = true;
      else this.hear(event.data);
    };
  }

  private hear({ samples, rate }: Heard): void {
    if (this.resampler?.rate !== rate) this.resampler = { rate, stream: new Resampler(rate, sampleRate) };
    this.playout.push(this.resampler.stream.process(fromInt16(samples)));
  }

  process(_inputs: Float32Array[][], outputs: Float32Array[][]): boolean {
    const out = outputs[0]?.[0];
    if (out) this.playout.pull(out);
    if (this.draining && this.playout.isEmpty) {
      this.draining = false;
      this.port.postMessage("drained");
    }
    return true;
  }
}

registerProcessor("callbox-capture", Capture);
registerProcessor("callbox-play", Play);

/** Runs in the audio thread: one processor for each direction. */

import { Downsampler, toInt16 } from "./resample";
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
  private readonly downsampler: Downsampler;
  private readonly chunk: Int16Array;
  private filled = 0;

  constructor(options: Options) {
    super();
    const { rate, chunk } = options.processorOptions ?? { rate: 16_000, chunk: 320 };
    this.downsampler = new Downsampler(sampleRate, rate);
    this.chunk = new Int16Array(chunk);
  }

  process(inputs: Float32Array[][]): boolean {
    const mono = inputs[0]?.[0];
    if (!mono) return true;
    for (const sample of toInt16(this.downsampler.process(mono))) {
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

/**
 * 16-bit chunks at the context's own rate to the speaker. Asked to "drain", it answers "drained"
 * once everything was played.
 */
class Play extends AudioWorkletProcessor {
  private readonly playout = new Playout(
    Math.round(sampleRate * 0.04),
    Math.round(sampleRate * 0.32),
    Math.round(sampleRate * 0.25),
  );

  private draining = false;

  constructor() {
    super();
    this.port.onmessage = (event: MessageEvent<Int16Array | "drain">) => {
      if (event.data === "drain") this.draining = true;
      else this.playout.push(event.data);
    };
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

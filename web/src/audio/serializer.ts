/** Pipecat's protobuf frames, read so that nothing is lost which the page needs. */

import type { RTVIMessage } from "@pipecat-ai/client-js";
import { ProtobufFrameSerializer } from "@pipecat-ai/websocket-transport";

/** What Pipecat's frames look like from here; other kinds of frames exist and are passed over. */
export type Frame =
  | { kind: "audio"; samples: Int16Array; rate: number }
  | { kind: "message"; json: string }
  | { kind: "other" };

/** Pipecat's default, for frames that do not name their rate. */
const DEFAULT_RATE = 24_000;

/**
 * The transport's own serializer drops the sample rate of audio, throws on frames that are neither
 * audio nor message, and may hand frames on in another order than they came.
 */
export class FrameSerializer extends ProtobufFrameSerializer {
  private readonly rates = new WeakMap<Int16Array, number>();
  private tail: Promise<unknown> = Promise.resolve();

  // The base class promises no more than audio and messages; its interface, and the transport,
  // know "raw" too and ignore it.
  override deserialize(data: unknown): ReturnType<ProtobufFrameSerializer["deserialize"]> {
    if (!(data instanceof Blob)) throw new Error("a frame must be binary");
    const reading = data.arrayBuffer();
    const result = this.tail.then(async () => this.read(new Uint8Array(await reading)));
    this.tail = result.catch(() => undefined);
    return result as ReturnType<ProtobufFrameSerializer["deserialize"]>;
  }

  /** Samples a second of audio that came from `deserialize`. */
  rateOf(samples: Int16Array): number {
    return this.rates.get(samples) ?? DEFAULT_RATE;
  }

  private read(bytes: Uint8Array) {
    const frame = readFrame(bytes);
    if (frame.kind === "message") return { type: "message", message: JSON.parse(frame.json) as RTVIMessage };
    if (frame.kind === "other") return { type: "raw", message: null };
    this.rates.set(frame.samples, frame.rate);
    return { type: "audio", audio: frame.samples };
  }
}

/**
 * Reads `Frame{ AudioRawFrame audio = 2; MessageFrame message = 4 }` with
 * `AudioRawFrame{ bytes audio = 3; uint32 sample_rate = 4 }` and `MessageFrame{ string data = 1 }`.
 */
export function readFrame(bytes: Uint8Array): Frame {
  for (const { field, value } of fields(bytes)) {
    if (typeof value === "number") continue;
    if (field === 2) return readAudio(value);
    if (field === 4) {
      const data = [...fields(value)].find((inner) => inner.field === 1)?.value;
      return { kind: "message", json: data instanceof Uint8Array ? new TextDecoder().decode(data) : "null" };
    }
  }
  return { kind: "other" };
}

function readAudio(bytes: Uint8Array): Frame {
  let samples = new Int16Array(0);
  let rate = DEFAULT_RATE;
  for (const { field, value } of fields(bytes)) {
    // A copy: samples must begin at an even address, which those in a frame need not.
    if (field === 3 && value instanceof Uint8Array) samples = new Int16Array(new Uint8Array(value.subarray(0, value.length & ~1)).buffer);
    if (field === 4 && typeof value === "number" && value > 0) rate = value;
  }
  return { kind: "audio", samples, rate };
}

function* fields(bytes: Uint8Array): Generator<{ field: number; value: number | Uint8Array }> {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error("a frame ends in the middle of a number");
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const field = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        yield { field, value: varint() };
        break;
      case 1:
        at += 8;
        break;
      case 2: {
        const length = varint();
        if (at + length > bytes.length) throw new Error("a frame is shorter than it says");
        yield { field, value: bytes.subarray(at, at + length) };
        at += length;
        break;
      }
      case 5:
        at += 4;
        break;
      default:
        throw new Error(`a frame has a field of unknown kind ${tag % 8}`);
    }
  }
}

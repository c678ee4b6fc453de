// The two kinds of Pipecat's protobuf frames that a call needs, written and read by hand:
// Frame{ AudioRawFrame audio = 2; MessageFrame message = 4 },
// AudioRawFrame{ bytes audio = 3; uint32 sample_rate = 4; uint32 num_channels = 5 },
// MessageFrame{ string data = 1 }.

/** @param {Buffer} pcm 16-bit little endian, one channel @param {number} rate */
export function audioFrame(pcm, rate) {
  const audio = Buffer.concat([bytes(2, Buffer.from("audio")), bytes(3, pcm), number(4, rate), number(5, 1)]);
  return bytes(2, audio);
}

/** @param {unknown} message */
export function messageFrame(message) {
  return bytes(4, bytes(1, Buffer.from(JSON.stringify(message))));
}

/**
 * @param {Buffer} frame
 * @returns {{ audio: Buffer, rate: number } | { message: any } | null}
 */
export function readFrame(frame) {
  const outer = fields(frame);
  const audio = outer.get(2);
  if (Buffer.isBuffer(audio)) {
    const inner = fields(audio);
    const pcm = inner.get(3);
    return { audio: Buffer.isBuffer(pcm) ? pcm : Buffer.alloc(0), rate: Number(inner.get(4) ?? 0) };
  }
  const message = outer.get(4);
  if (Buffer.isBuffer(message)) {
    const data = fields(message).get(1);
    return { message: JSON.parse(Buffer.isBuffer(data) ? data.toString("utf8") : "null") };
  }
  return null;
}

/** @param {number} field @param {Buffer} value */
function bytes(field, value) {
  return Buffer.concat([varint((field << 3) | 2), varint(value.length), value]);
}

/** @param {number} field @param {number} value */
function number(field, value) {
  return Buffer.concat([varint(field << 3), varint(value)]);
}

/** @param {number} value */
function varint(value) {
  const out = [];
  for (; value > 0x7f; value = Math.floor(value / 128)) out.push((value % 128) | 0x80);
  out.push(value);
  return Buffer.from(out);
}

/** @param {Buffer} buffer @returns {Map<number, Buffer | number>} */
function fields(buffer) {
  const found = new Map();
  let at = 0;
  const next = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = buffer[at++];
      if (byte === undefined) throw new Error("a frame ends in the middle of a number");
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < buffer.length) {
    const tag = next();
    const kind = tag & 7;
    if (kind === 0) found.set(tag >> 3, next());
    else if (kind === 2) {
      const length = next();
      found.set(tag >> 3, buffer.subarray(at, (at += length)));
    } else throw new Error(`a frame has a field of kind ${kind}`);
  }
  return found;
}

// The stand-in's bot: answers the RTVI hand-shake, greets with three tones, and says back what it
// hears once the caller has been quiet for a while. Its audio leaves at the pace of speech.

import { audioFrame, messageFrame, readFrame } from "./frames.mjs";

// Not the rate that browsers play at, nor the transport's default: the page has to mind it.
const RATE = 16_000;
const PACE_MS = 40;
const QUIET_MS = 600;
const LOUD = 0.02;

export class EchoBot {
  /** @type {Int16Array[]} what was heard of the current utterance, at RATE */
  heard = [];
  quietMs = 0;
  speaking = false;
  /** @type {Int16Array[]} chunks that are still to be sent */
  queue = [];

  /**
   * @param {(frame: { audio: boolean, data: Buffer }) => void} send
   * @param {(line: string) => void} log
   */
  constructor(send, log) {
    this.send = send;
    this.log = log;
    this.pace = setInterval(() => this.sendNext(), PACE_MS);
  }

  /** @param {Buffer} data */
  hear(data) {
    const frame = readFrame(data);
    if (!frame) return;
    if ("message" in frame) this.answer(frame.message);
    else this.listen(frame.audio, frame.rate);
  }

  stop() {
    clearInterval(this.pace);
  }

  /** @param {any} message */
  answer(message) {
    if (message?.type !== "client-ready") return;
    this.log("client is ready, greeting");
    const data = { version: message.data?.version ?? "2.0.0", about: { library: "stand-in" } };
    this.send({ audio: false, data: messageFrame({ label: "rtvi-ai", type: "bot-ready", id: message.id, data }) });
    this.say(greeting());
  }

  /** @param {Buffer} pcm @param {number} rate */
  listen(pcm, rate) {
    const samples = new Int16Array(pcm.length >> 1);
    for (let i = 0; i < samples.length; i++) samples[i] = pcm.readInt16LE(2 * i);
    const ms = (samples.length / rate) * 1000;
    const loud = rms(samples) >= LOUD;
    if (loud && !this.speaking) {
      this.speaking = true;
      this.log("caller speaks");
    }
    if (!this.speaking) return;
    this.quietMs = loud ? 0 : this.quietMs + ms;
    this.heard.push(stretch(samples, rate));
    if (this.quietMs < QUIET_MS) return;
    this.log(`caller stopped, answering with ${this.heard.length} chunks`);
    this.say(concat(this.heard));
    this.heard = [];
    this.speaking = false;
    this.quietMs = 0;
  }

  /** @param {Int16Array} samples */
  say(samples) {
    const size = (RATE * PACE_MS) / 1000;
    for (let i = 0; i < samples.length; i += size) this.queue.push(samples.slice(i, i + size));
  }

  sendNext() {
    const chunk = this.queue.shift();
    if (chunk) this.send({ audio: true, data: audioFrame(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength), RATE) });
  }
}

function greeting() {
  const notes = [392, 494, 587];
  const each = RATE * 0.3;
  const out = new Int16Array(each * notes.length);
  notes.forEach((hz, n) => {
    for (let i = 0; i < each; i++) {
      const swell = Math.sin((Math.PI * i) / each);
      out[n * each + i] = 9000 * swell * Math.sin((2 * Math.PI * hz * i) / RATE);
    }
  });
  return out;
}

/** Brings samples to RATE by linear interpolation. @param {Int16Array} samples @param {number} rate */
function stretch(samples, rate) {
  const out = new Int16Array(Math.round((samples.length * RATE) / rate));
  for (let i = 0; i < out.length; i++) {
    const at = (i * rate) / RATE;
    const low = samples[Math.floor(at)] ?? 0;
    const high = samples[Math.floor(at) + 1] ?? low;
    out[i] = low + (high - low) * (at % 1);
  }
  return out;
}

/** @param {Int16Array[]} chunks */
function concat(chunks) {
  const out = new Int16Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

/** @param {Int16Array} samples */
function rms(samples) {
  let sum = 0;
  for (const sample of samples) sum += (sample / 0x8000) ** 2;
  return samples.length ? Math.sqrt(sum / samples.length) : 0;
}

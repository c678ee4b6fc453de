/** Microphone and speaker of one call, in the shape that WebSocketTransport wants. */

import type { Tracks } from "@pipecat-ai/client-js";
import { WavMediaManager } from "@pipecat-ai/websocket-transport";
// Vite bundles the worklet into a file of its own and gives its address.
import workletUrl from "./worklet.ts?worker&url";
import type { FrameSerializer } from "./serializer";
import type { Heard } from "./worklet";

/** Samples a second towards the bot: what the transport writes into its frames. */
const RECORD_RATE = 16_000;
/** The longest that the bot's last words are played after the call. */
const DRAIN_MS = 5_000;
/** Samples in one message towards the bot: 20 ms. */
const CHUNK = RECORD_RATE / 50;

/**
 * The transport's own managers either load code from the network (Daily's) or leave holes when
 * packets come unevenly and never close their audio contexts (the wav one). This one keeps the
 * type of the latter, because the transport exports no other base, and replaces what it does.
 */
export class CallMedia extends WavMediaManager {
  private readonly output: AudioContext;
  private readonly input: AudioContext;
  private readonly botMeter: AnalyserNode;
  private readonly userMeter: AnalyserNode;
  private readonly samples = new Float32Array(1024);
  private stream: MediaStream | null = null;
  private player: AudioWorkletNode | null = null;
  private open = false;
  private closed = false;

  /** Make it inside the handler of a click: only then may audio contexts run. */
  constructor(private readonly serializer: FrameSerializer) {
    super();
    // Both run at the devices' own rates: not every browser converts, and the worklets do.
    this.output = new AudioContext({ latencyHint: "interactive" });
    this.input = new AudioContext({ latencyHint: "interactive" });
    this.botMeter = this.meter(this.output);
    this.userMeter = this.meter(this.input);
    void this.output.resume();
    void this.input.resume();
  }

  /** Opens the microphone and gets the speaker ready. Rejects with what getUserMedia says. */
  override async initialize(): Promise<void> {
    if (this.stream) return;
    if (!navigator.mediaDevices) throw new DOMException("no access to media devices", "SecurityError");
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    if (this.closed) return stop(stream);
    this.stream = stream;
    await Promise.all([this.input.audioWorklet.addModule(workletUrl), this.output.audioWorklet.addModule(workletUrl)]);
    this.wirePlayer();
    this.wireMicrophone(stream);
    const device = await deviceOf(stream);
    // client-js takes the microphone for granted only when it is told of a device.
    if (device) this._callbacks.onMicUpdated?.(device);
  }

  override async connect(): Promise<void> {
    await this.initialize();
  }

  /** Closes the microphone at once, and the speaker when the bot's last words were played. */
  override async disconnect(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    if (this.stream) stop(this.stream);
    await this.drained();
    await Promise.allSettled([this.input.close(), this.output.close()]);
  }

  /** The caller hung up: what is still to be played is not wanted any more. */
  cutOff(): void {
    this.player?.disconnect();
    this.player = null;
  }

  /**
   * Lets the microphone's audio through. Before the bot is there nobody listens, and the
   * dispatcher would have to keep it all.
   */
  openMicrophone(): void {
    this.open = true;
  }

  override bufferBotAudio(data: ArrayBuffer | Int16Array): Int16Array {
    const samples = data instanceof Int16Array ? data : new Int16Array(data);
    this.open = true;
    const heard: Heard = { samples, rate: this.serializer.rateOf(samples) };
    this.player?.port.postMessage(heard);
    return samples;
  }

  override async userStartedSpeaking(): Promise<unknown> {
    return undefined;
  }

  /** A muted microphone goes on to send silence: the bot's turn detection needs to hear it. */
  override async enableMic(enable: boolean): Promise<void> {
    this._micEnabled = enable;
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = enable;
  }

  override tracks(): Tracks {
    const audio = this.stream?.getAudioTracks()[0];
    return { local: audio ? { audio } : {} };
  }

  /** What is heard from the bot and from the microphone at this moment, as RMS from 0 to 1. */
  levels(): { bot: number; you: number } {
    if (this.closed) return { bot: 0, you: 0 };
    return { bot: this.level(this.botMeter), you: this.level(this.userMeter) };
  }

  private drained(): Promise<void> {
    const player = this.player;
    if (!player || this.output.state !== "running") return Promise.resolve();
    return new Promise((resolve) => {
      setTimeout(resolve, DRAIN_MS);
      player.port.onmessage = () => resolve();
      player.port.postMessage("drain");
    });
  }

  private meter(context: AudioContext): AnalyserNode {
    const meter = context.createAnalyser();
    meter.fftSize = 1024;
    return meter;
  }

  private level(meter: AnalyserNode): number {
    meter.getFloatTimeDomainData(this.samples);
    let sum = 0;
    for (const sample of this.samples) sum += sample * sample;
    return Math.sqrt(sum / this.samples.length);
  }

  private wirePlayer(): void {
    this.player = new AudioWorkletNode(this.output, "callbox-play", {
      numberOfInputs: 0,
      outputChannelCount: [1],
    });
    this.player.connect(this.botMeter).connect(this.output.destination);
  }

  private wireMicrophone(stream: MediaStream): void {
    const capture = new AudioWorkletNode(this.input, "callbox-capture", {
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { rate: RECORD_RATE, chunk: CHUNK },
    });
    capture.port.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      if (this.open && !this.closed) this._userAudioCallback?.(event.data);
    };
    this.input.createMediaStreamSource(stream).connect(this.userMeter).connect(capture);
    // A node that leads nowhere is not run by every browser; the processor puts out silence.
    capture.connect(this.input.destination);
    for (const track of stream.getAudioTracks()) track.enabled = this._micEnabled;
  }
}

function stop(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}

async function deviceOf(stream: MediaStream): Promise<MediaDeviceInfo | undefined> {
  const track = stream.getAudioTracks()[0];
  const wanted = track?.getSettings().deviceId;
  const devices = await navigator.mediaDevices.enumerateDevices();
  const microphones = devices.filter((device) => device.kind === "audioinput");
  return microphones.find((device) => device.deviceId === wanted) ?? microphones[0];
}

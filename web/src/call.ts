/** One call, from the press of the button to the session's end. */

import { LogLevel, PipecatClient, RTVIError } from "@pipecat-ai/client-js";
import { WebSocketTransport } from "@pipecat-ai/websocket-transport";
import { Activity } from "./activity";
import { bearer, endpoint, endSession, isWebsocketJoin, type LogEntry, type Session, sessionIdOf } from "./api";
import { CallMedia } from "./audio/media";
import { FrameSerializer } from "./audio/serializer";
import { follow } from "./sse";
import { endTrouble, lostTrouble, microphoneTrouble, otherTrouble, startTrouble, type Trouble } from "./trouble";

/** Where the call is, seen from this page. */
export type Phase = "microphone" | "starting" | "joining" | "live" | "over";

export interface CallEvents {
  phase(phase: Phase): void;
  session(session: Session): void;
  log(entry: LogEntry): void;
  levels(levels: { bot: number; you: number }): void;
  /** The bot was heard for the first time, in milliseconds from the request. */
  heard(ms: number): void;
  trouble(trouble: Trouble): void;
}

/** A machine that starts slowly has nothing to say for a while. */
const LOG_RETRIES = Array<number>(60).fill(1_000);
const MEASURE_EVERY_MS = 50;
/** How long the session's end is awaited after the call is over. */
const END_WAIT_MS = 30_000;
/** How long a hang-up may take to be noticed before the session is ended through the API. */
const NOTICE_MS = 1_500;

export class Call {
  readonly bot = new Activity(0.008, 700);
  readonly you = new Activity(0.02, 500);
  phase: Phase = "microphone";
  session: Session | null = null;
  /** On the page's clock; null before the request was sent. */
  requestedAt: number | null = null;
  heardAfterMs: number | null = null;

  private readonly serializer = new FrameSerializer();
  private readonly media = new CallMedia(this.serializer);
  private readonly client: PipecatClient;
  private readonly streams = new AbortController();
  private readonly meter = setInterval(() => this.measure(), MEASURE_EVERY_MS);
  private readonly over: Promise<void>;
  private token: string | null = null;
  private lastLog = 0;
  private troubled = false;
  private signalOver!: () => void;

  /** Make it inside the handler of a click, because it makes the audio contexts. */
  constructor(
    private readonly botName: string,
    private readonly key: string | null,
    private readonly events: CallEvents,
  ) {
    this.over = new Promise((resolve) => (this.signalOver = resolve));
    this.client = new PipecatClient({
      transport: new WebSocketTransport({ mediaManager: this.media, serializer: this.serializer }),
      enableMic: true,
      enableCam: false,
      callbacks: {
        onDisconnected: () => this.connectionClosed(),
        // A closed socket is reported as a fatal error; the bot's own errors are in its log.
        onError: (message) => {
          if ((message.data as { fatal?: boolean } | undefined)?.fatal) this.connectionClosed();
        },
      },
    });
    this.client.setLogLevel(LogLevel.WARN);
  }

  /** Resolves when the call is live or over; never rejects. */
  async run(): Promise<void> {
    if (!(await this.openMicrophone())) return;
    const join = await this.start();
    if (!join) return;
    this.enter("joining");
    try {
      await Promise.race([this.client.connect(join), this.over]);
    } catch {
      // The socket was refused; the transport's words for it help nobody, the session's may.
      return this.connectionClosed();
    }
    if (this.isOver) return;
    this.media.openMicrophone();
    this.enter("live");
  }

  /** Ends the call at once, wherever it is. */
  async hangUp(): Promise<void> {
    const wasLive = this.phase === "live";
    this.media.cutOff();
    this.finish();
    if (!this.token) return;
    // Closing the socket ends a live session; one that still starts has to be told.
    if (wasLive && (await this.sessionIsEnding(NOTICE_MS))) return;
    await endSession(sessionIdOf(this.token), this.token).catch(() => undefined);
  }

  setMuted(muted: boolean): void {
    this.client.enableMic(!muted);
  }

  /** The page goes away: nothing can be awaited any more. */
  abandon(): void {
    if (this.token && !this.isOver) void endSession(sessionIdOf(this.token), this.token).catch(() => undefined);
  }

  /** Milliseconds since the request, or null before it. */
  elapsed(): number | null {
    return this.requestedAt === null ? null : performance.now() - this.requestedAt;
  }

  levels(): { bot: number; you: number } {
    return this.media.levels();
  }

  get isOver(): boolean {
    return this.phase === "over";
  }

  private async openMicrophone(): Promise<boolean> {
    this.enter("microphone");
    try {
      // Before the start: a refused microphone must not cost a machine.
      await this.client.initDevices();
      return !this.isOver;
    } catch (error) {
      this.fail(microphoneTrouble(error));
      return false;
    }
  }

  private async start() {
    this.enter("starting");
    this.requestedAt = performance.now();
    try {
      const join = await this.client.startBot({
        endpoint: endpoint("start"),
        headers: this.key ? bearer(this.key) : new Headers(),
        requestData: { bot: this.botName, transport: "websocket", body: {} },
      });
      if (!isWebsocketJoin(join)) throw new Error("the dispatcher's answer to the start has no wsUrl and token");
      this.token = join.token;
      this.watch(join.token);
      if (!this.isOver) return join;
      // Hung up while the answer was on its way.
      await endSession(sessionIdOf(join.token), join.token).catch(() => undefined);
    } catch (error) {
      this.fail(startTroubleOf(error));
    }
    return null;
  }

  private watch(token: string): void {
    const base = `v1/sessions/${sessionIdOf(token)}`;
    const signal = this.streams.signal;
    const onSession = (data: unknown) => this.onSession(data as Session);
    const onLog = (data: unknown) => this.onLog(data as LogEntry);
    follow({ url: endpoint(`${base}/events`), token, event: "session", onData: onSession, signal })
      .catch(() => undefined)
      .then(() => setTimeout(() => this.streams.abort(), 1_000));
    // Logs are an extra: the page works without them.
    follow({
      url: endpoint(`${base}/logs?follow=true`),
      token,
      event: "log",
      onData: onLog,
      signal,
      mayEnd: () => this.session?.state === "ended",
      retryMs: LOG_RETRIES,
    }).catch(() => undefined);
  }

  private onSession(session: Session): boolean {
    this.session = session;
    this.events.session(session);
    if (session.state === "ending" || session.state === "ended") {
      const trouble = endTrouble(session);
      if (trouble) this.report(trouble);
      this.finish();
    }
    return session.state === "ended";
  }

  private onLog(entry: LogEntry): boolean {
    // A stream that was opened again begins at the first line.
    if (entry.seq > this.lastLog) {
      this.lastLog = entry.seq;
      this.events.log(entry);
    }
    return false;
  }

  /** The other side closed the socket; the session says why. */
  private connectionClosed(): void {
    if (this.isOver || (this.phase !== "joining" && this.phase !== "live")) return;
    this.finish();
    void this.sessionIsEnding(4_000).then((known) => {
      if (known || !this.token) return;
      this.report(lostTrouble());
      // Without a client the session would only wait for its time-out.
      void endSession(sessionIdOf(this.token), this.token).catch(() => undefined);
    });
  }

  private fail(trouble: Trouble): void {
    this.report(trouble);
    this.finish();
  }

  private report(trouble: Trouble): void {
    if (this.troubled) return;
    this.troubled = true;
    this.events.trouble(trouble);
  }

  private finish(): void {
    if (this.isOver) return;
    clearInterval(this.meter);
    this.bot.close();
    this.you.close();
    this.enter("over");
    this.signalOver();
    void this.client.disconnect();
    void this.media.disconnect();
    setTimeout(() => this.streams.abort(), this.token ? END_WAIT_MS : 0);
  }

  private enter(phase: Phase): void {
    if (this.isOver) return;
    this.phase = phase;
    this.events.phase(phase);
  }

  private measure(): void {
    const now = performance.now();
    const levels = this.media.levels();
    this.bot.update(levels.bot, now);
    this.you.update(levels.you, now);
    const first = this.bot.utterances[0];
    if (first && this.heardAfterMs === null && this.requestedAt !== null) {
      this.heardAfterMs = first.from - this.requestedAt;
      this.events.heard(this.heardAfterMs);
    }
    this.events.levels(levels);
  }

  private async sessionIsEnding(withinMs: number): Promise<boolean> {
    const deadline = performance.now() + withinMs;
    for (;;) {
      const state = this.session?.state;
      if (state === "ending" || state === "ended") return true;
      if (performance.now() >= deadline) return false;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

function startTroubleOf(error: unknown): Trouble {
  if (!(error instanceof RTVIError)) return otherTrouble(error);
  // client-js gives status 500 to requests that were never answered.
  const unanswered = error.status === 500 && /fetch|network|load failed/i.test(error.message);
  return startTrouble(unanswered ? null : (error.status ?? null), error.message);
}

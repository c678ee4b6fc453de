// A dispatcher made of make-believe: the API that the page uses and a bot that greets with a tone
// and answers with what it heard. It exists so that the page can be worked on and tested alone.
//
//   node e2e/stand-in.mjs [--port 7860] [--key cbk_pub_…] [--slow 1] [--cold] [--bot ws://…/ws]
//
// With --bot the call is carried to a real bot's websocket instead (`python3 -m callbox_bot`).

import { createHmac, randomBytes, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { WebSocket, WebSocketServer } from "ws";
import { EchoBot } from "./echo-bot.mjs";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));
/** @type {Record<string, string>} */
const FILES = {
  "index.html": "text/html; charset=utf-8",
  "app.js": "text/javascript",
  "worklet.js": "text/javascript",
  "app.css": "text/css",
  "icon.svg": "image/svg+xml",
};

/**
 * @param {{ port?: number, key?: string | null, slow?: number, start?: "clone" | "cold", dist?: string, bot?: string | null,
 *   refuse?: { status: number, body: Record<string, unknown> } | null,
 *   failStart?: string | null, botHangsUpAfterMs?: number | null }} [options]
 */
export async function standIn(options = {}) {
  const { slow = 1, start = "clone", dist = DIST } = options;
  const secret = randomBytes(32);
  /** @type {Map<string, ReturnType<typeof makeSession>>} */
  const sessions = new Map();
  const settings = { key: options.key ?? null, bot: options.bot ?? null, refuse: options.refuse ?? null, failStart: options.failStart ?? null, botHangsUpAfterMs: options.botHangsUpAfterMs ?? null };

  const server = createServer((request, response) => {
    route(request, response).catch((error) => fail(response, 500, "internal", String(error)));
  });
  const sockets = new WebSocketServer({ noServer: true });

  /** @param {import("node:http").IncomingMessage} request @param {import("node:http").ServerResponse} response */
  async function route(request, response) {
    const url = new URL(request.url ?? "/", "http://stand-in");
    const path = url.pathname;
    if (path === "/v1/info") {
      return json(response, 200, { name: "callbox", version: "0.0.0-stand-in", auth: settings.key !== null, bots: [{ name: "parrot", transports: ["websocket"] }] });
    }
    if (path === "/start" && request.method === "POST") return begin(request, response);
    const match = /^\/v1\/sessions\/([^/]+)(?:\/(events|logs))?$/.exec(path);
    if (match) {
      const session = sessions.get(match[1] ?? "");
      if (!session || bearer(request, url) !== session.token) return fail(response, 404, "session-not-found", "no such session");
      if (match[2] === "events") return session.streamEvents(response);
      if (match[2] === "logs") return session.streamLogs(response);
      if (request.method === "DELETE") session.end("ended-by-api", "ended by a request", "completed");
      return json(response, request.method === "DELETE" ? 202 : 200, session.view());
    }
    const file = path === "/" ? "index.html" : path.slice(1);
    const type = FILES[file];
    if (!type) return fail(response, 404, "not-found", "no such page");
    response.writeHead(200, { "content-type": type, "cache-control": "no-cache" });
    response.end(await readFile(`${dist}/${file}`));
  }

  /** @param {import("node:http").IncomingMessage} request @param {import("node:http").ServerResponse} response */
  async function begin(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString() || "{}");
    if (settings.key !== null && bearer(request, null) !== settings.key) return fail(response, 401, "unauthorized", "the key is not known here");
    if (settings.refuse) return json(response, settings.refuse.status, settings.refuse.body);
    const id = randomUUID();
    const token = `${id}.${createHmac("sha256", secret).update(id).digest("hex")}`;
    const session = makeSession({ id, token, bot: body.bot ?? "parrot", slow, start, settings });
    sessions.set(id, session);
    response.setHeader("x-callbox-session-id", id);
    json(response, 200, { wsUrl: `ws://${request.headers.host}/ws/${id}`, token });
    session.begin();
  }

  server.on("upgrade", (request, socket, head) => {
    const url = new URL(request.url ?? "/", "http://stand-in");
    const session = sessions.get(url.pathname.replace("/ws/", ""));
    if (!session || url.searchParams.get("token") !== session.token) return socket.destroy();
    sockets.handleUpgrade(request, socket, head, (ws) => session.join(ws));
  });

  function stop() {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(() => resolve(null)));
  }

  await new Promise((resolve) => server.listen(options.port ?? 0, "127.0.0.1", () => resolve(null)));
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}/`,
    settings,
    sessions,
    /** Stops in good order. */
    close: () => {
      for (const session of sessions.values()) session.end("shutdown", "the dispatcher stops", "completed");
      return stop();
    },
    /** Is gone from one moment to the next. */
    vanish: () => {
      for (const socket of sockets.clients) socket.terminate();
      return stop();
    },
  };
}

/**
 * @param {{ id: string, token: string, bot: string, slow: number, start: string,
 *   settings: { bot: string | null, failStart: string | null, botHangsUpAfterMs: number | null } }} options
 */
function makeSession({ id, token, bot, slow, start, settings }) {
  const acceptedAt = performance.now();
  const acceptedDate = Date.now();
  /** @type {Record<string, number>} */
  const stages = { accepted: 0 };
  /** @type {{ seq: number, at_ms: number, source: string, text: string }[]} */
  const logs = [];
  /** @type {Set<import("node:http").ServerResponse>} */
  const watchers = new Set();
  /** @type {Set<import("node:http").ServerResponse>} */
  const readers = new Set();
  /** @type {NodeJS.Timeout[]} */
  const timers = [];
  let state = "queued";
  /** @type {{ code: string, detail: string } | null} */
  let reason = null;
  /** @type {string | null} */
  let outcome = null;
  /** @type {import("ws").WebSocket | null} */
  let client = null;
  /** @type {{ hear: (frame: Buffer) => void, stop: () => void } | null} */
  let echo = null;
  /** @type {Buffer[]} */
  let early = [];

  const view = () => ({
    id,
    bot,
    transport: "websocket",
    provider: "local",
    state,
    end_reason: reason,
    outcome,
    incarnation: stages["started"] === undefined ? 0 : 1,
    machine: stages["started"] === undefined ? null : `${bot}-${id.slice(0, 8)}`,
    accelerator: stages["started"] === undefined ? null : "tcg",
    start: stages["started"] === undefined ? null : start,
    moments: everyMoment((at) => new Date(acceptedDate + at).toISOString()),
    stages_ms: everyMoment((at) => at),
    start_stages: stages["started"] === undefined ? [] : startStages(stages["started"], start),
    deadline_at: null,
  });

  /** @template T @param {(at: number) => T} of */
  function everyMoment(of) {
    const names = ["accepted", "started", "ready", "joined", "audible", "ended"];
    return Object.fromEntries(names.map((name) => [name, stages[name] === undefined ? null : of(stages[name])]));
  }

  /** @param {string} moment */
  function came(moment) {
    if (stages[moment] !== undefined) return;
    stages[moment] = performance.now() - acceptedAt;
    changed();
  }

  function changed() {
    for (const watcher of watchers) sse(watcher, "session", view());
  }

  /** @param {"bot" | "agent" | "dispatcher"} source @param {string} text */
  function log(source, text) {
    const entry = { seq: logs.length + 1, at_ms: Date.now(), source, text };
    logs.push(entry);
    for (const reader of readers) sse(reader, "log", entry);
  }

  /** @param {number} ms @param {() => void} then */
  const after = (ms, then) => void timers.push(setTimeout(then, ms * slow));

  function goLive() {
    if (stages["ready"] === undefined || !client || state === "ending" || state === "ended") return;
    state = "live";
    changed();
    log("dispatcher", "client and bot are connected");
    const ws = client;
    const send = (/** @type {{ audio: boolean, data: Buffer }} */ frame) => {
      if (frame.audio) came("audible");
      ws.send(frame.data);
    };
    echo = settings.bot
      ? realBot(settings.bot, send, () => end("bot-ended", "the bot left the call", "completed"))
      : new EchoBot(send, (text) => log("bot", text));
    for (const frame of early.splice(0)) echo.hear(frame);
    if (settings.botHangsUpAfterMs) after(settings.botHangsUpAfterMs, () => end("bot-ended", "the bot left the call", "completed"));
  }

  function begin() {
    state = "starting";
    log("dispatcher", `session ${id} accepted`);
    changed();
    const [started, ready] = start === "clone" ? [190, 310] : [2600, 5200];
    after(started, () => {
      if (settings.failStart) return end("start-failed", settings.failStart, "failed");
      state = "joining";
      log("agent", "awake: clock set, kernel reseeded");
      came("started");
    });
    after(ready, () => {
      if (state !== "joining") return;
      log("bot", "\u001b[32m2026-01-01 12:00:00.000\u001b[0m | \u001b[1mINFO\u001b[0m | pipeline of parrot is ready");
      came("ready");
      goLive();
    });
  }

  /** @param {import("ws").WebSocket} ws */
  function join(ws) {
    client = ws;
    came("joined");
    ws.on("message", (data) => {
      const frame = /** @type {Buffer} */ (data);
      if (echo) echo.hear(frame);
      else early.push(frame);
    });
    ws.on("close", () => end("client-left", "the client closed its websocket", "completed"));
    goLive();
  }

  /** @param {string} code @param {string} detail @param {string} how */
  function end(code, detail, how) {
    if (state === "ending" || state === "ended") return;
    state = "ending";
    reason = { code, detail };
    outcome = how;
    timers.splice(0).forEach(clearTimeout);
    echo?.stop();
    client?.close(1000);
    log("dispatcher", `ending: ${detail}`);
    changed();
    setTimeout(() => {
      state = "ended";
      came("ended");
      for (const stream of [...watchers, ...readers]) stream.end();
    }, 90);
  }

  return {
    token,
    view,
    begin,
    join,
    end,
    /** @param {import("node:http").ServerResponse} response */
    streamEvents(response) {
      openStream(response, watchers);
      sse(response, "session", view());
      if (state === "ended") response.end();
    },
    /** @param {import("node:http").ServerResponse} response */
    streamLogs(response) {
      openStream(response, readers);
      for (const entry of logs) sse(response, "log", entry);
      if (state === "ended") response.end();
    },
  };
}

/**
 * Carries the call to a bot that runs somewhere else.
 * @param {string} address
 * @param {(frame: { audio: boolean, data: Buffer }) => void} send
 * @param {() => void} ended
 */
function realBot(address, send, ended) {
  const socket = new WebSocket(address);
  /** @type {Buffer[]} */
  const early = [];
  socket.on("open", () => early.splice(0).forEach((frame) => socket.send(frame)));
  // The first byte of a frame names its kind; 0x12 is audio.
  socket.on("message", (data) => send({ audio: /** @type {Buffer} */ (data)[0] === 0x12, data: /** @type {Buffer} */ (data) }));
  socket.on("close", ended);
  socket.on("error", ended);
  return {
    hear: (/** @type {Buffer} */ frame) => (socket.readyState === WebSocket.OPEN ? socket.send(frame) : void early.push(frame)),
    stop: () => socket.close(),
  };
}

/** @param {number} total @param {string} start */
function startStages(total, start) {
  const shares = start === "clone" ? { spawn: 0.2, resume: 0.45, wake: 0.25 } : { spawn: 0.02, boot: 0.8, prepare: 0.12, wake: 0.02 };
  return Object.entries(shares).map(([name, share]) => ({ name, ms: total * share }));
}

/** @param {import("node:http").ServerResponse} response @param {Set<import("node:http").ServerResponse>} into */
function openStream(response, into) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  into.add(response);
  response.on("close", () => into.delete(response));
}

/** @param {import("node:http").ServerResponse} response @param {string} event @param {unknown} data */
function sse(response, event, data) {
  response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
}

/** @param {import("node:http").IncomingMessage} request @param {URL | null} url */
function bearer(request, url) {
  return request.headers.authorization?.replace(/^Bearer /, "") ?? url?.searchParams.get("token") ?? null;
}

/** @param {import("node:http").ServerResponse} response @param {number} status @param {unknown} body */
function json(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

/** @param {import("node:http").ServerResponse} response @param {number} status @param {string} code @param {string} text */
function fail(response, status, code, text) {
  json(response, status, { error: text, code, info: text, detail: text });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { port: { type: "string", default: "7860" }, key: { type: "string" }, slow: { type: "string", default: "1" }, cold: { type: "boolean" }, bot: { type: "string" } },
  });
  const running = await standIn({
    port: Number(values.port),
    key: values.key ?? null,
    slow: Number(values.slow),
    start: values.cold ? "cold" : "clone",
    bot: values.bot ?? null,
  });
  console.log(`stand-in dispatcher at ${running.url}`);
}

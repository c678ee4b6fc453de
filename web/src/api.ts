/** The words of the dispatcher's public API, as far as the page uses them. */

/** The moments of a session in their usual order. */
export const MOMENTS = ["accepted", "started", "ready", "joined", "audible"] as const;
export type Moment = (typeof MOMENTS)[number];

/** Milliseconds from `accepted`; what has not come yet is null or missing. */
export type StagesMs = Partial<Record<Moment | "ended", number | null>>;

export type SessionState = "queued" | "starting" | "joining" | "live" | "ending" | "ended";

export interface Session {
  id: string;
  bot: string;
  transport: string;
  provider: string;
  state: SessionState;
  end_reason: { code: string; detail: string } | null;
  outcome?: "completed" | "failed" | null;
  incarnation?: number;
  machine?: string | null;
  accelerator: string | null;
  start: string | null;
  moments: Partial<Record<Moment | "ended", string | null>>;
  stages_ms: StagesMs;
  start_stages?: { name: string; ms: number }[];
}

export interface LogEntry {
  seq: number;
  at_ms: number;
  source: "bot" | "agent" | "dispatcher";
  text: string;
}

export interface Info {
  name: string;
  version: string;
  auth: boolean;
  bots: { name: string; transports: string[] }[];
}

/** What `POST /start` answers for the websocket transport. */
export interface WebsocketJoin {
  wsUrl: string;
  token: string;
}

/** An answer of the dispatcher that is not 2xx. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null,
    readonly hint: string | null,
  ) {
    super(message);
  }
}

/** Addresses are relative to the page, so that the dispatcher may live under a path. */
export function endpoint(path: string): string {
  return new URL(path, document.baseURI).href;
}

export async function fetchInfo(): Promise<Info> {
  const response = await fetch(endpoint("v1/info"), { cache: "no-store" });
  if (!response.ok) throw await errorOf(response);
  return (await response.json()) as Info;
}

/** Asks the dispatcher to end one session; `token` is the session's own. */
export async function endSession(id: string, token: string): Promise<void> {
  const response = await fetch(endpoint(`v1/sessions/${id}`), {
    method: "DELETE",
    headers: bearer(token),
    // The request must outlive the page when it is closed in the middle of a start.
    keepalive: true,
  });
  if (!response.ok && response.status !== 404) throw await errorOf(response);
}

export function bearer(secret: string): Headers {
  return new Headers({ Authorization: `Bearer ${secret}` });
}

/** The session's id is the part of its token before the first dot. */
export function sessionIdOf(token: string): string {
  const dot = token.indexOf(".");
  return dot < 0 ? token : token.slice(0, dot);
}

export function isWebsocketJoin(value: unknown): value is WebsocketJoin {
  if (typeof value !== "object" || value === null) return false;
  const join = value as Partial<Record<keyof WebsocketJoin, unknown>>;
  return typeof join.wsUrl === "string" && typeof join.token === "string";
}

export async function errorOf(response: Response): Promise<ApiError> {
  const body = (await response.json().catch(() => ({}))) as Record<string, unknown>;
  const text = (key: string) => (typeof body[key] === "string" ? (body[key] as string) : null);
  const message = text("info") ?? text("detail") ?? text("error") ?? response.statusText;
  return new ApiError(
    message || `the dispatcher answered ${response.status}`,
    response.status,
    text("code"),
    text("hint"),
  );
}

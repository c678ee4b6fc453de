/** Numbers and lines, as people read them. */

/** A span in milliseconds: `0.4 ms`, `87 ms`, `1.24 s`, `12.4 s`, `2 min 05 s`. */
export function span(ms: number): string {
  if (ms < 0.05) return "0 ms";
  if (ms < 10) return `${trim(ms.toFixed(1))} ms`;
  if (Math.round(ms) < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 9.995) return `${s.toFixed(2)} s`;
  if (s < 59.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

/** A tick on an axis whose ticks are `step` apart: `0`, `200 ms`, `1 s`, `1.5 s`. */
export function tick(ms: number): string {
  if (ms === 0) return "0";
  return ms < 1000 ? `${trim(ms.toFixed(1))} ms` : `${trim((ms / 1000).toFixed(2))} s`;
}

/** A log line without the escapes that colour terminals. */
export function plainLine(line: string): string {
  const escapes = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007]*\u0007/g;
  return line.replace(escapes, "").replace(/[\u0000-\u0008\u000a-\u001f\u007f]/g, "");
}

/** A log line as a person wants it: of a JSON record the level, the message and what went wrong. */
export function readableLine(line: string): { level: string | null; text: string } {
  const record = line.startsWith("{") ? parseRecord(line) : null;
  const message = record?.["message"] ?? record?.["msg"];
  if (!record || typeof message !== "string") return { level: null, text: plainLine(line) };
  const level = typeof record["level"] === "string" ? record["level"].toLowerCase() : null;
  const exception = typeof record["exception"] === "string" ? `\n${record["exception"].trimEnd()}` : "";
  return { level, text: (message + exception).split("\n").map(plainLine).join("\n") };
}

function parseRecord(line: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

function trim(decimal: string): string {
  return decimal.includes(".") ? decimal.replace(/\.?0+$/, "") : decimal;
}

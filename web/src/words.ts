/** Sentences about where the call is. */

import type { Session } from "./api";
import type { Phase } from "./call";

/** The line under the button. */
export function statusLine(phase: Phase | "idle", session: Session | null): string {
  switch (phase) {
    case "idle":
      return "Press Call and say something when you hear the greeting.";
    case "microphone":
      return "Waiting for the microphone. Your browser may ask.";
    case "starting":
      return "Asking for a machine.";
    case "joining":
      return joiningLine(session);
    case "live":
      return "You are connected. Speak when you like.";
    case "over":
      if (!session) return "No call was made.";
      return session.state === "ended" ? "The call is over." : "The call is over. Clearing up.";
  }
}

/** Why the session ended, for the line next to the facts; empty while it has not. */
export function endLine(session: Session | null): string {
  return session?.end_reason ? `${session.end_reason.detail || session.end_reason.code}` : "";
}

/** `clone` etc. in words. */
export function startWord(start: string | null): string {
  switch (start) {
    case "clone":
      return "clone of a template";
    case "cold":
      return "cold start";
    case "reserve":
      return "taken from the reserve";
    default:
      return start ?? "";
  }
}

/** `tcg` etc. in words. */
export function acceleratorWord(accelerator: string | null): string {
  switch (accelerator) {
    case "kvm":
      return "kvm (hardware)";
    case "tcg":
      return "tcg (emulated)";
    default:
      return accelerator ?? "";
  }
}

function joiningLine(session: Session | null): string {
  if (!session?.moments.started) return "Starting a machine for this call.";
  if (!session.moments.ready) return "The machine runs. Waiting for the bot.";
  return "The bot is ready. Connecting you.";
}

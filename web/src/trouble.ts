/** What went wrong, in words for the person in front of the page. */

import type { Session } from "./api";

export interface Trouble {
  title: string;
  text: string;
  hint: string | null;
  /** The way out is to give a key. */
  needsKey: boolean;
}

/** The microphone could not be had. */
export function microphoneTrouble(error: unknown): Trouble {
  const name = error instanceof Error ? error.name : "";
  const title = "The microphone is not available";
  switch (name) {
    case "NotAllowedError":
      return trouble(title, "The browser was not allowed to use it.", "Allow the microphone for this page in the browser's address bar, then call again.");
    case "NotFoundError":
    case "OverconstrainedError":
      return trouble(title, "No microphone was found.", "Connect one, then call again.");
    case "NotReadableError":
    case "AbortError":
      return trouble(title, "Another program may be using it.", "Close that program, then call again.");
    case "SecurityError":
      return trouble(title, "Browsers give it only to pages from localhost or over https.", "Open this page over https, or through a tunnel on localhost.");
    default:
      return trouble(title, messageOf(error), null);
  }
}

/** `POST /start` failed. `status` is null where no answer came. */
export function startTrouble(status: number | null, message: string): Trouble {
  if (status === null) return unreachable();
  if (status === 401 || status === 403) {
    return { title: "The key was not accepted", text: sentence(message), hint: "Paste a key that may start sessions; it begins with cbk_pub_.", needsKey: true };
  }
  if (status === 429) return trouble("Every machine is taken", sentence(message), "Try again in a moment.");
  if (status === 503) return trouble("Not ready to take calls", sentence(message), "Try again in a moment.");
  return trouble("The call could not be started", sentence(message), null);
}

/** The session ended because something did not work; null where it ended well. */
export function endTrouble(session: Session): Trouble | null {
  const reason = session.end_reason;
  if (session.outcome !== "failed" || !reason) return null;
  return trouble("The call failed", sentence(reason.detail || reason.code), null);
}

export function lostTrouble(): Trouble {
  return trouble("The connection was lost", "The call's websocket closed and the dispatcher gave no reason.", "Check that the dispatcher still runs, then call again.");
}

export function unreachable(): Trouble {
  return trouble("The dispatcher does not answer", "The page could not reach the server that it came from.", "Check that callbox runs, then try again.");
}

export function otherTrouble(error: unknown): Trouble {
  return trouble("The call could not be made", sentence(messageOf(error)), null);
}

function trouble(title: string, text: string, hint: string | null): Trouble {
  return { title, text, hint, needsKey: false };
}

function messageOf(error: unknown): string {
  return error instanceof Error && error.message ? error.message : String(error);
}

/** The dispatcher's messages begin in lower case and have no full stop; on a page they stand alone. */
export function sentence(message: string): string {
  const text = message.trim();
  if (!text) return "No reason was given.";
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}

import type { Session } from "../src/api.ts";

export interface Utterances {
  bot: { from: number; to: number | null }[];
  you: { from: number; to: number | null }[];
}

declare global {
  interface Window {
    /** What the page shows to tests; see the end of src/main.ts. */
    callbox: {
      phase: string;
      session: Session | null;
      trouble: { title: string } | null;
      levels: { bot: number; you: number };
      utterances: Utterances;
      heardAfterMs: number | null;
    };
  }
  /** Put into the page by scenarios.mjs. */
  function answerMs(utterances: Utterances): number | null;
}

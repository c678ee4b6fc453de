/** Who spoke when, from levels. */

export interface Utterance {
  /** Milliseconds on the page's clock (`performance.now()`). */
  from: number;
  /** Null while it goes on. */
  to: number | null;
}

/** Turns a level (RMS, 0 to 1) that is measured every now and then into utterances. */
export class Activity {
  readonly utterances: Utterance[] = [];
  private lastLoud = 0;

  /**
   * @param threshold the least level that counts as sound
   * @param hangMs how long it must be quiet before an utterance is over
   */
  constructor(
    private readonly threshold: number,
    private readonly hangMs: number,
  ) {}

  get current(): Utterance | null {
    const last = this.utterances.at(-1);
    return last && last.to === null ? last : null;
  }

  update(level: number, now: number): void {
    const current = this.current;
    if (level >= this.threshold) {
      this.lastLoud = now;
      if (!current) this.utterances.push({ from: now, to: null });
    } else if (current && now - this.lastLoud >= this.hangMs) {
      current.to = this.lastLoud;
    }
  }

  /** Closes an utterance that still goes on. */
  close(): void {
    const current = this.current;
    if (current) current.to = this.lastLoud;
  }
}

/** The height of a level in a meter, 0 to 1: linear in decibels from -54 dBFS to -6 dBFS. */
export function meterHeight(rms: number): number {
  if (rms <= 0) return 0;
  const db = 20 * Math.log10(rms);
  return Math.min(1, Math.max(0, (db + 54) / 48));
}

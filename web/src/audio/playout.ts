/** The bot's audio between the network and the speaker. */

/**
 * Holds samples back until a cushion is there, so that packets which come unevenly play without
 * holes. The cushion starts small, because it is heard as delay, and doubles when it was too small.
 */
export class Playout {
  private chunks: Float32Array[] = [];
  private offset = 0;
  private buffered = 0;
  private filling = true;
  /** Samples pulled since the first chunk of this filling came. */
  private waited = 0;
  /** Samples pulled since the buffer ran dry; null before it ever did. */
  private dryFor: number | null = null;
  private cushion: number;

  /** All sizes in samples. */
  constructor(
    cushion: number,
    private readonly maxCushion: number,
    /** A gap shorter than this was the network's, a longer one was a pause of the speaker. */
    private readonly maxGap: number,
  ) {
    this.cushion = cushion;
  }

  push(chunk: Float32Array): void {
    if (chunk.length === 0) return;
    if (this.filling && this.buffered === 0) {
      this.waited = 0;
      if (this.dryFor !== null && this.dryFor < this.maxGap) {
        this.cushion = Math.min(this.maxCushion, this.cushion * 2);
      }
    }
    this.chunks.push(chunk);
    this.buffered += chunk.length;
  }

  /** Fills `out` with what is to be heard now. */
  pull(out: Float32Array): void {
    let written = 0;
    if (this.filling && this.mayStart(out.length)) this.filling = false;
    if (!this.filling) {
      written = this.take(out);
      if (written < out.length) {
        this.filling = true;
        this.dryFor = 0;
      }
    } else if (this.dryFor !== null && this.buffered === 0) {
      this.dryFor += out.length;
    }
    out.fill(0, written);
  }

  get isEmpty(): boolean {
    return this.buffered === 0;
  }

  get cushionSamples(): number {
    return this.cushion;
  }

  /** An utterance shorter than the cushion must be heard too: do not wait longer than it is. */
  private mayStart(pulled: number): boolean {
    if (this.buffered === 0) return false;
    this.waited += pulled;
    return this.buffered >= this.cushion || this.waited > this.cushion;
  }

  private take(out: Float32Array): number {
    let written = 0;
    while (written < out.length) {
      const chunk = this.chunks[0];
      if (!chunk) break;
      const part = chunk.subarray(this.offset, this.offset + out.length - written);
      out.set(part, written);
      written += part.length;
      this.offset += part.length;
      if (this.offset === chunk.length) {
        this.chunks.shift();
        this.offset = 0;
      }
    }
    this.buffered -= written;
    return written;
  }
}

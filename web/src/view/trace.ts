/** Both directions' levels over the last seconds: the bot above the line, you below it. */

import { meterHeight } from "../activity";

const STEP_PX = 5;
const BAR_PX = 3;
/** Measurements that one bar stands for. */
const PER_BAR = 2;

export class TraceView {
  private readonly context: CanvasRenderingContext2D;
  private readonly still = matchMedia("(prefers-reduced-motion: reduce)");
  private history: { bot: number; you: number }[] = [];
  private added = 0;

  constructor(private readonly canvas: HTMLCanvasElement) {
    const context = canvas.getContext("2d");
    if (!context) throw new Error("no 2d canvas");
    this.context = context;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  add(levels: { bot: number; you: number }): void {
    const fresh = { bot: meterHeight(levels.bot), you: meterHeight(levels.you) };
    const last = this.history.at(-1);
    if (last && this.added++ % PER_BAR !== 0) {
      last.bot = Math.max(last.bot, fresh.bot);
      last.you = Math.max(last.you, fresh.you);
    } else {
      this.history.push(fresh);
    }
    if (this.history.length > 1_000) this.history.splice(0, 500);
    this.draw();
  }

  clear(): void {
    this.history = [];
    this.draw();
  }

  private draw(): void {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = devicePixelRatio;
    // Setting a size clears the canvas, so it is set with every drawing.
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    const style = getComputedStyle(this.canvas);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const colours = { bot: colour("--bot"), you: colour("--you"), rest: colour("--line-strong") };
    if (this.still.matches) this.drawStill(width, height, colours);
    else this.drawHistory(width, height, colours);
  }

  private drawHistory(width: number, height: number, colours: Colours): void {
    const columns = Math.floor(width / STEP_PX);
    const middle = height / 2;
    for (let i = 0; i < columns; i++) {
      const x = width - (i + 1) * STEP_PX + (STEP_PX - BAR_PX);
      const level = this.history[this.history.length - 1 - i];
      // What is older fades, so that the eye rests on now.
      this.context.globalAlpha = 1 - 0.75 * (i / columns);
      const bot = (level?.bot ?? 0) * (middle - 6);
      const you = (level?.you ?? 0) * (middle - 6);
      if (bot < 1 && you < 1) {
        this.fill(x, middle - 1, BAR_PX, 2, colours.rest);
        continue;
      }
      if (bot >= 1) this.fill(x, middle - 1 - bot, BAR_PX, bot, colours.bot);
      if (you >= 1) this.fill(x, middle + 1, BAR_PX, you, colours.you);
    }
    this.context.globalAlpha = 1;
  }

  /** For people who asked for less motion: two bars that only change in length. */
  private drawStill(width: number, height: number, colours: Colours): void {
    const level = this.history.at(-1) ?? { bot: 0, you: 0 };
    const rows = [
      { y: height * 0.36, share: level.bot, colour: colours.bot },
      { y: height * 0.64, share: level.you, colour: colours.you },
    ];
    for (const { y, share, colour } of rows) {
      this.fill(0, y - 4, width, 8, colours.rest);
      this.fill(0, y - 4, Math.max(8, width * share), 8, colour);
    }
  }

  private fill(x: number, y: number, width: number, height: number, colour: string): void {
    this.context.fillStyle = colour;
    this.context.beginPath();
    this.context.roundRect(x, y, width, height, Math.min(width, height) / 2);
    this.context.fill();
  }
}

interface Colours {
  bot: string;
  you: string;
  rest: string;
}

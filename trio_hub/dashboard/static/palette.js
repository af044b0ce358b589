// Colours of the task stream. They are those of Okabe and Ito, which people with any colour vision tell apart; vermilion
// is kept for failures.

import { colour } from "./dom.js";

const HUES = ["--hue-1", "--hue-2", "--hue-3", "--hue-4", "--hue-5", "--hue-6"];

/** The fills of a theme: read anew when that changes. */
export class Palette {
  constructor() {
    this.hues = HUES.map(colour);
    this.error = colour("--failure");
    this.aborted = colour("--aborted");
    this.ink = colour("--ink");
    this.muted = colour("--muted");
    this.grid = colour("--line");
    this.back = colour("--surface");
    this.hatch = hatch(this.error, this.back);
    this.crosses = hatch(this.aborted, this.back);
  }

  /** The colour of a label, by its index: the same for as long as the hub lives. */
  label(index) {
    return this.hues[((index % HUES.length) + HUES.length) % HUES.length];
  }

  /** The number of labels after which colours come again. */
  static size = HUES.length;
}

/** Stripes, so that failures are seen without colours, too. */
function hatch(fore, back) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const pen = tile.getContext("2d");
  pen.fillStyle = fore;
  pen.fillRect(0, 0, 6, 6);
  pen.strokeStyle = back;
  pen.lineWidth = 1.5;
  for (const shift of [-6, 0, 6]) {
    pen.beginPath();
    pen.moveTo(shift, 6);
    pen.lineTo(shift + 6, 0);
    pen.stroke();
  }
  return pen.createPattern(tile, "repeat");
}

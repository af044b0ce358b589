// The colours of the task stream: those of Okabe and Ito, which people with any colour vision can distinguish.
// Vermilion is used only for failures.

import { colour } from "./dom.js";

const HUES = ["--hue-1", "--hue-2", "--hue-3", "--hue-4", "--hue-5", "--hue-6"];

/** The fills of a theme. They are read again when the theme changes. */
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

  /** The colour of a label, by its index. It stays the same until the hub stops. */
  label(index) {
    return this.hues[((index % HUES.length) + HUES.length) % HUES.length];
  }

  /** The number of labels after which colours repeat. */
  static size = HUES.length;
}

/** Stripes, so that failures are recognised without colours. */
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

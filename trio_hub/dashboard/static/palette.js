// The colours of the task stream: those of Okabe and Ito, which people with any colour vision can distinguish, and four
// more. Vermilion is used only for failures.

import { colour } from "./dom.js";

const HUES = Array.from({ length: 10 }, (_, index) => `--hue-${index + 1}`);

/**
 * Gives the labels in sight colours: the most frequent ones a colour of their own, the others one colour together.
 *
 * A label keeps its colour as long as it is one of the most frequent in sight.
 */
export class Colouring {
  /** The index of its colour, by label. */
  colours = new Map();
  /** The number of labels in sight without a colour of their own. */
  others = 0;

  /** Choose the labels with colours. `counts` has the number of tasks in sight by label. Returns whether they change. */
  choose(counts) {
    const sorted = [...counts].sort(([a, n], [b, m]) => m - n || a - b).map(([index]) => index);
    const chosen = sorted.slice(0, HUES.length);
    this.others = sorted.length - chosen.length;
    const kept = new Map([...this.colours].filter(([index]) => chosen.includes(index)));
    const free = HUES.map((_, place) => place).filter((place) => ![...kept.values()].includes(place));
    const fresh = chosen.filter((index) => !kept.has(index));
    for (const index of fresh) kept.set(index, free.shift());
    const changed = fresh.length > 0 || kept.size !== this.colours.size;
    this.colours = kept;
    return changed;
  }

  /** The name of the colour of a label in the style sheet. */
  static property(place) {
    return place === undefined ? "--hue-other" : HUES[place];
  }
}

/** The fills of a theme. They are read again when the theme changes. */
export class Palette {
  constructor() {
    this.hues = HUES.map(colour);
    this.other = colour("--hue-other");
    this.faded = colour("--line");
    this.error = colour("--failure");
    this.aborted = colour("--aborted");
    this.ink = colour("--ink");
    this.muted = colour("--muted");
    this.grid = colour("--line");
    this.back = colour("--surface");
    this.hatch = hatch(this.error, this.back);
    this.crosses = hatch(this.aborted, this.back);
  }

  /** The fill of a label, by the index of its colour; undefined for a label without a colour of its own. */
  fill(place) {
    return place === undefined ? this.other : this.hues[place];
  }
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

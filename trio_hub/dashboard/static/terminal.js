// Output of programs that was written for a terminal: colours are shown, and a carriage return overwrites its line.

import { h, visible } from "./dom.js";

const SPECIAL = /[\x1b\r\b]/;
/**
 * A control sequence (with its parameters and its end), an operating system command, another escape (such as the choice
 * of a character set, which has characters before its end), or characters.
 */
const PARTS =
  /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]+[0-~]|\x1b[0-Z\\^-~]|[\r\b]|[^\x1b\r\b]+|\x1b/g;
const PLAIN = "";

/** Return a text with the escape sequences of terminals as nodes. */
export function terminal(text) {
  if (!SPECIAL.test(text)) return [visible(text)];
  const nodes = [];
  const style = new Style();
  text.split("\n").forEach((line, number) => {
    if (number) nodes.push("\n");
    nodes.push(...drawn(line, style));
  });
  return nodes;
}

/** Return the nodes of one line. The style is the style at its beginning; it is changed to the style at its end. */
function drawn(line, style) {
  const cells = []; // [character, classes]
  let column = 0;
  for (const [part, parameters, end] of line.matchAll(PARTS)) {
    if (part === "\r") column = 0;
    else if (part === "\b") column = Math.max(0, column - 1);
    else if (end === "m") style.change(parameters);
    else if (end === "K") {
      if (parameters === "2") cells.fill([" ", PLAIN]);
      else if (parameters !== "1") cells.length = Math.min(cells.length, column);
    } else if (part[0] !== "\x1b") {
      const { classes } = style;
      for (const character of part) {
        while (cells.length < column) cells.push([" ", PLAIN]);
        cells[column++] = [character, classes];
      }
    }
  }
  const nodes = [];
  for (let first = 0; first < cells.length; ) {
    const classes = cells[first][1];
    let last = first;
    while (last < cells.length && cells[last][1] === classes) last++;
    const text = visible(
      cells
        .slice(first, last)
        .map(([character]) => character)
        .join(""),
    );
    nodes.push(classes ? h("span", { class: classes }, text) : text);
    first = last;
  }
  return nodes;
}

/** The present colour and weight of the text. */
class Style {
  #colour = null;
  #on = new Set();

  get classes() {
    return [this.#colour === null ? "" : `ansi-${this.#colour}`, ...this.#on].filter(Boolean).join(" ");
  }

  change(parameters) {
    const codes = parameters.split(/[;:]/).map(Number);
    while (codes.length) {
      const code = codes.shift();
      if (code === 0) {
        this.#colour = null;
        this.#on.clear();
      } else if (code === 1) this.#on.add("ansi-bold");
      else if (code === 22) this.#on.delete("ansi-bold");
      else if (code === 3) this.#on.add("ansi-italic");
      else if (code === 23) this.#on.delete("ansi-italic");
      else if (code === 4) this.#on.add("ansi-underlined");
      else if (code === 24) this.#on.delete("ansi-underlined");
      else if (code === 7 || (code >= 40 && code <= 47) || (code >= 100 && code <= 107)) this.#on.add("ansi-marked");
      else if (code === 27 || code === 49) this.#on.delete("ansi-marked");
      else if (code >= 30 && code <= 37) this.#colour = code - 30;
      else if (code >= 90 && code <= 97) this.#colour = code - 90;
      else if (code === 39) this.#colour = null;
      else if (code === 38) this.#colour = oneOfEight(codes);
      else if (code === 48) {
        oneOfEight(codes);
        this.#on.add("ansi-marked");
      }
    }
  }
}

/** Take the rest of a code of one of many colours, and return the nearest of the eight colours of the style sheet. */
function oneOfEight(codes) {
  const kind = codes.shift();
  if (kind === 2) return nearest(codes.splice(0, 3));
  if (kind !== 5) return null;
  const index = codes.shift() ?? 0;
  if (index < 16) return index % 8;
  if (index >= 232) return index < 244 ? 0 : 7;
  const place = index - 16;
  return nearest([Math.floor(place / 36), Math.floor(place / 6) % 6, place % 6]);
}

function nearest(parts) {
  const most = Math.max(...parts);
  return most > 0 ? parts.reduce((sum, part, bit) => sum + (part > most / 2 ? 1 << bit : 0), 0) : 0;
}

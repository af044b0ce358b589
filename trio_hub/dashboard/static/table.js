// Tables that are sorted by their headings and updated in place. Of large tables, only the visible rows are drawn.

import { button, h, reconcile, setAttribute, setText } from "./dom.js";

const SPARE = 8; // the number of rows drawn above and below the visible ones

/**
 * `columns` are `{id, title, text | fill, sort, heading, number, narrow, admin}`: `text(row)` returns the text of a
 * cell, or `fill(cell, row)` makes the cell show the row; `sort(row)` returns the sort key, and a column without it
 * cannot be sorted. The column with `heading`, or else the first column, is the heading of the rows. A column with
 * `narrow: false` is hidden on narrow screens, a column with `admin` if actions are not allowed, and an `optional`
 * column if no row has a value for it.
 */
export class Table {
  #columns;
  #key;
  #windowed;
  #rows = [];
  #sorted = [];
  #order; // [column id, 1 or -1], or null for the original order of the rows
  #headings = new Map();
  #body = h("tbody");
  #above = h("tr", { class: "filler", "aria-hidden": "true" }, h("td"));
  #below = h("tr", { class: "filler", "aria-hidden": "true" }, h("td"));
  #empty;
  #rowHeight = 30;

  constructor({ caption, columns, key, order = null, windowed = false, empty = "Nothing here." }) {
    this.#columns = columns;
    this.#key = key;
    this.#order = order;
    this.#windowed = windowed;
    this.#empty = h("div", { class: "muted empty" }, empty); // a text or an element
    this.table = h(
      "table",
      { class: "rows" },
      h("caption", {}, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((column) => this.#heading(column)),
        ),
      ),
      this.#body,
    );
    for (const filler of [this.#above, this.#below]) filler.firstChild.colSpan = columns.length;
    this.element = h(
      "div",
      { class: windowed ? "scroll windowed" : "scroll", tabindex: "0", role: "region", "aria-label": caption },
      this.table,
      this.#empty,
    );
    if (windowed) {
      this.#body.append(this.#above, this.#below);
      this.element.addEventListener("scroll", () => this.#draw(), { passive: true });
      new ResizeObserver(() => this.#draw()).observe(this.element);
    }
  }

  #heading(column) {
    const cell = h(
      "th",
      { scope: "col", class: classes(column) },
      column.sort ? button(column.title, () => this.#sortBy(column.id), { class: "sort" }) : column.title,
    );
    this.#headings.set(column.id, cell);
    return cell;
  }

  #sortBy(id) {
    const [current, direction] = this.#order ?? [];
    this.#order = [id, current === id ? -direction : 1];
    this.update(this.#rows);
  }

  /** Show these rows. */
  update(rows) {
    this.#rows = rows;
    this.#sorted = rows;
    const [id, direction] = this.#order ?? [];
    for (const [name, cell] of this.#headings)
      setAttribute(cell, "aria-sort", name === id ? (direction > 0 ? "ascending" : "descending") : null);
    const by = this.#columns.find((column) => column.id === id)?.sort;
    if (by) this.#sorted = [...rows].sort((a, b) => compare(by(a), by(b), direction));
    for (const { id, optional, sort } of this.#columns)
      if (optional)
        this.table.classList.toggle(
          `without-${id}`,
          rows.every((row) => sort(row) === null),
        );
    this.#empty.hidden = rows.length > 0;
    setAttribute(this.table, "aria-rowcount", rows.length + 1);
    this.#draw();
  }

  #draw() {
    let first = 0;
    let last = this.#sorted.length;
    if (this.#windowed) {
      first = Math.max(0, Math.floor(this.element.scrollTop / this.#rowHeight) - SPARE);
      last = Math.min(last, Math.ceil((this.element.scrollTop + this.element.clientHeight) / this.#rowHeight) + SPARE);
      first = Math.min(first, last);
      this.#above.firstChild.style.height = `${first * this.#rowHeight}px`;
      this.#below.firstChild.style.height = `${(this.#sorted.length - last) * this.#rowHeight}px`;
      this.#above.hidden = first === 0;
      this.#below.hidden = last === this.#sorted.length;
    }
    const shown = this.#sorted.slice(first, last);
    let index = last;
    reconcile(
      this.#body,
      shown,
      this.#key,
      () => this.#create(),
      (tr, row) => {
        setAttribute(tr, "aria-rowindex", index-- + 1);
        this.#columns.forEach((column, i) =>
          column.fill ? column.fill(tr.children[i], row) : setText(tr.children[i], column.text(row)),
        );
      },
      this.#windowed ? this.#below : null,
    );
    if (this.#windowed && shown.length) {
      const height = this.#above.nextElementSibling.getBoundingClientRect().height;
      if (height > 0 && Math.abs(height - this.#rowHeight) > 0.5) {
        this.#rowHeight = height;
        this.#draw();
      }
    }
  }

  #create() {
    const heading = this.#columns.find((column) => column.heading) ?? this.#columns[0];
    return h(
      "tr",
      {},
      this.#columns.map((column) =>
        h(column === heading ? "th" : "td", { scope: column === heading ? "row" : null, class: classes(column) }),
      ),
    );
  }
}

const classes = (column) =>
  [
    column.number && "number",
    column.narrow === false && "wide-only",
    column.admin && "admin-only",
    column.optional && `column-${column.id}`,
  ]
    .filter(Boolean)
    .join(" ") || null;

/** Compare numbers by value and texts alphabetically. Missing values come last in both directions. */
function compare(a, b, direction) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
  if (b === null || b === undefined) return -1;
  return direction * (typeof a === "string" ? a.localeCompare(b) : a - b);
}

/** Show a link in a cell. It is created once, and changed only if it differs. */
export function fillLink(cell, href, text, title = null) {
  const link = cell.firstElementChild ?? cell.appendChild(h("a"));
  setAttribute(link, "href", href);
  setAttribute(link, "title", title);
  setText(link, text);
}

/** Show a text that may be cut off, and the whole text when the pointer is on it. */
export function fillCut(cell, text) {
  setText(cell, text);
  setAttribute(cell, "title", text.length > 20 ? text : null);
}

/** Show a state in a cell, by a word and by a mark with a shape of its own, so that colour is not needed. */
export function fillState(cell, state) {
  const mark = cell.firstElementChild ?? cell.appendChild(h("span"));
  setAttribute(mark, "class", `state ${state}`);
  setText(mark, state);
}

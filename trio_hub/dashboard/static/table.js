// Real tables that stay quick: sorted by their headings, updated in place, and, of many rows, only those in sight.

import { button, h, reconcile, setAttribute, setText } from "./dom.js";

const SPARE = 8; // rows above and below those in sight

/**
 * `columns` are `{id, title, text | fill, sort, heading, number, narrow, admin}`: `text(row)` is what a cell says, or
 * `fill(cell, row)` has the cell show the row; `sort(row)` is what rows are ordered by, and a column without it does
 * not sort. One column, the first if no other is called so, is the rows' `heading`. A column with `narrow: false` is
 * left out on narrow screens, one with `admin` where actions are not allowed, one that is `optional` where no row has it.
 */
export class Table {
  #columns;
  #key;
  #windowed;
  #rows = [];
  #sorted = [];
  #order; // [column id, 1 or -1], or null for the order that the rows come in
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
    this.#empty = h("p", { class: "muted empty" }, empty);
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

/** Numbers by value, text by the alphabet; what is not there comes last, in both directions. */
function compare(a, b, direction) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
  if (b === null || b === undefined) return -1;
  return direction * (typeof a === "string" ? a.localeCompare(b) : a - b);
}

/** Have a cell show a link; made once, changed only where it differs. */
export function fillLink(cell, href, text, title = null) {
  const link = cell.firstElementChild ?? cell.appendChild(h("a"));
  setAttribute(link, "href", href);
  setAttribute(link, "title", title);
  setText(link, text);
}

/** Have a cell show a state: by word and by a mark of its own shape, not by colour alone. */
export function fillState(cell, state) {
  const mark = cell.firstElementChild ?? cell.appendChild(h("span"));
  setAttribute(mark, "class", `state ${state}`);
  setText(mark, state);
}

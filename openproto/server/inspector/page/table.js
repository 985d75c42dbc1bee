// A table of which only the rows in sight exist: 50,000 memories cost as much as forty.
import { el, marked, moment, shorten, stored } from "./dom.js";

const LONGEST = 1000; // characters of a memory in its row, which shows less
const SPARE = 10; // rows kept above and below what is seen

/** Return in a word what a memory's validity is now, "" where it is simply current. */
export function standing(record, now = Date.now()) {
  if (record.superseded_by) return "superseded";
  if (record.valid_to && Date.parse(record.valid_to) <= now) return "expired";
  if (record.valid_from && Date.parse(record.valid_from) > now) return "upcoming";
  return "";
}

export class Table {
  #items = [];
  #rows = new Map();
  #chosen = -1;
  #height = 40;
  #frame = 0;
  #of = null;
  #scored = false;
  #query = "";

  constructor({ label, onOpen, onEnd }) {
    Object.assign(this, { onOpen, onEnd });
    this.head = el("div", { role: "row", class: "head", "aria-rowindex": "1" });
    this.body = el("div", { role: "rowgroup", class: "rows" });
    this.element = el(
      "div",
      {
        class: "table",
        role: "grid",
        tabindex: "0",
        "aria-label": label,
        scroll: () => this.#soon(),
        keydown: (event) => this.#onKey(event),
        click: (event) => this.#onClick(event),
      },
      el("div", { role: "rowgroup", class: "heads" }, this.head),
      this.body,
    );
    new ResizeObserver(() => this.#measure()).observe(this.element);
  }

  /**
   * Show items, each {record, score?}. As long as they are `of` the same, the place in the table stays; `whole` says
   * whether there are no more of them. The words of a `query` are marked.
   */
  show(items, { of = items, whole = true, scored = false, query = "" } = {}) {
    const { chosen } = this;
    const fresh = of !== this.#of;
    this.#of = of;
    this.#items = items;
    if (fresh) this.element.scrollTop = 0;
    this.#chosen = fresh ? -1 : items.findIndex(({ record }) => record.id === chosen?.id);
    this.#scored = scored;
    this.#query = query;
    this.element.classList.toggle("scored", scored);
    const heads = [scored ? "Score" : null, "Memory", "Scope", "Tags", "Made", "Now"];
    this.head.replaceChildren(...heads.filter(Boolean).map((text) => el("div", { role: "columnheader", class: text.toLowerCase() }, text)));
    this.element.setAttribute("aria-colcount", String(heads.filter(Boolean).length));
    this.element.setAttribute("aria-rowcount", String(whole ? items.length + 1 : -1));
    this.redraw();
  }

  /** Draw every row in sight anew. */
  redraw() {
    for (const row of this.#rows.values()) row.remove();
    this.#rows.clear();
    this.body.style.height = `${this.#items.length * this.#height}px`;
    this.#draw();
  }

  get chosen() {
    return this.#items[this.#chosen]?.record ?? null;
  }

  #open(focus) {
    this.onOpen(this.chosen, { focus, hit: this.#scored ? this.#items[this.#chosen] : null });
  }

  #measure() {
    const height = parseFloat(getComputedStyle(this.element).getPropertyValue("--row"));
    if (height && height !== this.#height) {
      this.#height = height;
      this.redraw();
    } else this.#soon();
  }

  #soon() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const { scrollTop, clientHeight } = this.element;
    const from = Math.max(0, Math.floor(scrollTop / this.#height) - SPARE);
    const to = Math.min(this.#items.length, Math.ceil((scrollTop + clientHeight) / this.#height) + SPARE);
    for (const [index, row] of this.#rows) {
      if (index < from || index >= to) {
        row.remove();
        this.#rows.delete(index);
      }
    }
    const fresh = [];
    for (let index = from; index < to; index++) {
      if (!this.#rows.has(index)) {
        const row = this.#row(index);
        this.#rows.set(index, row);
        fresh.push(row);
      }
    }
    this.body.append(...fresh);
    if (to + 100 > this.#items.length) this.onEnd?.();
  }

  #row(index) {
    const { record, score, parts } = this.#items[index];
    const cell = (name, ...children) => el("div", { role: "gridcell", class: name }, ...children);
    const how = standing(record);
    const row = el(
      "div",
      { role: "row", class: "line", id: `row-${index}`, "aria-rowindex": String(index + 2), "aria-selected": String(index === this.#chosen) },
      this.#scored ? cell("score", score.toFixed(3), bar(score, { parts }), parts && el("span", { class: "for-ears" }, `, ${sumOf(parts)}`)) : null,
      cell("memory", marked(shorten(record.content, LONGEST), this.#query)),
      cell("scope", record.scope ? stored(record.scope) : null),
      cell("tags", (record.tags ?? []).map((tag) => stored(tag, "bdi", { class: "tag" }))),
      cell("made", moment(record.created_at)),
      cell("now", how && el("span", { class: `standing ${how}` }, how)),
    );
    row.dataset.index = index;
    if (parts) row.querySelector(".score").title = sumOf(parts);
    row.style.transform = `translateY(${index * this.#height}px)`;
    return row;
  }

  #mark(index) {
    this.#rows.get(this.#chosen)?.setAttribute("aria-selected", "false");
    this.#chosen = index;
    if (index < 0) return this.element.removeAttribute("aria-activedescendant");
    const top = index * this.#height;
    const { scrollTop, clientHeight } = this.element;
    const head = this.head.offsetHeight;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.#height + head > scrollTop + clientHeight) this.element.scrollTop = top + this.#height + head - clientHeight;
    this.#draw();
    this.#rows.get(index)?.setAttribute("aria-selected", "true");
    this.element.setAttribute("aria-activedescendant", `row-${index}`);
  }

  #onKey(event) {
    const last = this.#items.length - 1;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.#height) - 1);
    const to = {
      ArrowDown: this.#chosen + 1,
      j: this.#chosen + 1,
      ArrowUp: this.#chosen - 1,
      k: this.#chosen - 1,
      PageDown: this.#chosen + page,
      PageUp: this.#chosen - page,
      Home: 0,
      End: last,
    }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (to !== undefined && last >= 0) this.#mark(Math.min(last, Math.max(0, to)));
    else if (event.key === "Enter" && this.chosen) this.#open(true);
    else return;
    event.preventDefault();
  }

  #onClick(event) {
    const row = event.target.closest(".line");
    if (!row || String(getSelection()) !== "") return;
    this.#mark(Number(row.dataset.index));
    this.#open(false);
  }
}

/** Return a bar of a share's length, in a piece for each of its `parts` where they are known. */
export function bar(share, { name = "bar", parts = null } = {}) {
  const pieces = Object.entries(parts ?? { "": share }).map(([part, value]) => {
    const piece = el("span", part ? { "data-part": part } : {});
    piece.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
    return piece;
  });
  return el("span", { class: name, "aria-hidden": "true" }, pieces);
}

/** Return in words what a score is the sum of. */
export function sumOf(parts) {
  return Object.entries(parts).map(([part, value]) => `${part} ${value.toFixed(3)}`).join(" + ");
}

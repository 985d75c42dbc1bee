// What superseded what, as lines in time, and a slider that asks the server what was current at a moment.
import { pathOf } from "./api.js";
import { debounce, el, moment, shorten, stored } from "./dom.js";

const MOST = 12; // records of one chain

export class Timeline {
  #chain = [];
  #rows = new Map();

  constructor(app, record, onOpen) {
    Object.assign(this, { app, record, onOpen });
    this.element = el("section", { class: "timeline", "aria-label": "Validity in time" });
  }

  async start() {
    this.#chain = await this.#gather();
    if (!this.element.isConnected) return;
    const { valid_from: begins, valid_to: ends } = this.record;
    if (this.#chain.length === 1 && !begins && !ends) {
      return this.element.replaceChildren(el("h3", {}, "Validity in time"), el("p", { class: "dim small" }, "Current at every moment: it has no bounds, and nothing supersedes it."));
    }
    const now = Date.now();
    const spans = this.#chain.map((record) => spanOf(record, this.#chain));
    const made = this.#chain.map((record) => Date.parse(record.created_at));
    const moments = [...spans.flat(), ...made, now].filter(Number.isFinite);
    let from = Math.min(...moments);
    let to = Math.max(...moments);
    const margin = Math.max((to - from) * 0.06, 60_000);
    [from, to] = [from - margin, to + margin];
    const share = (at) => (Math.max(from, Math.min(to, at)) - from) / (to - from);
    const rows = this.#chain.map((record, index) => {
      const [start, end] = spans[index];
      const line = el("span", { class: "span" });
      line.style.left = `${share(start) * 100}%`;
      line.style.width = `${Math.max(1, (share(end) - share(start)) * 100)}%`;
      const state = el("span", { class: "small dim state" });
      const mine = record.id === this.record.id;
      const row = el(
        "li",
        { class: mine ? "mine" : "" },
        mine ? stored(shorten(record.content, 48), "span") : el("button", { type: "button", class: "link", click: () => this.onOpen(record) }, stored(shorten(record.content, 48))),
        state,
        el("span", { class: "track", "aria-hidden": "true" }, line),
      );
      this.#rows.set(record.id, { row, state });
      return row;
    });
    const shown = el("output", { for: "as-of" });
    const slider = el("input", { type: "range", id: "as-of", min: "0", max: "1000", value: String(Math.round(share(now) * 1000)), "aria-label": "As of" });
    const ask = debounce((at) => this.#ask(at).catch((error) => this.app.fault(error)), 120);
    const show = (at, text) => {
      shown.textContent = text;
      slider.setAttribute("aria-valuetext", text);
      for (const { row } of this.#rows.values()) row.style.setProperty("--at", `${share(at) * 100}%`);
      ask(new Date(at).toISOString());
    };
    slider.addEventListener("input", () => {
      const at = from + (Number(slider.value) / 1000) * (to - from);
      show(at, moment(at, { seconds: to - from < 3_600_000 }));
    });
    this.element.replaceChildren(el("div", { class: "row moment" }, el("h3", {}, "Validity in time"), shown), el("ol", { class: "lines" }, rows), slider);
    show(now, "now");
  }

  /** Return the record with those that it supersedes and that supersede it, oldest first. */
  async #gather() {
    const found = new Map([[this.record.id, this.record]]);
    const waiting = [this.record];
    while (waiting.length && found.size < MOST) {
      const { supersedes = [], superseded_by: successor } = waiting.shift();
      const ids = [...supersedes, ...(successor ? [successor] : [])].filter((id) => !found.has(id)).slice(0, MOST - found.size);
      for (const other of await Promise.all(ids.map((id) => this.#get(id)))) {
        if (other && !found.has(other.id)) {
          found.set(other.id, other);
          waiting.push(other);
        }
      }
    }
    return [...found.values()].sort((a, b) => beginning(a) - beginning(b));
  }

  async #get(id) {
    try {
      return await this.app.api.get(pathOf(id), { user_id: this.record.user_id });
    } catch (error) {
      if (error.status === 404) return null; // deleted since
      throw error;
    }
  }

  /** Ask which of the records were current at a moment: a list that holds only what was made when each was made. */
  async #ask(asOf) {
    const ask = (this.asked = Symbol());
    const answers = await Promise.all(
      this.#chain.map((record) => {
        const { user_id, scope, created_at: made } = record;
        return this.app.api.get("memories", { user_id, scope, since: made, until: made, as_of: asOf, limit: 500 });
      }),
    );
    if (ask !== this.asked) return;
    this.#chain.forEach((record, index) => {
      const current = answers[index].items.some(({ id }) => id === record.id);
      const { row, state } = this.#rows.get(record.id);
      row.classList.toggle("current", current);
      state.textContent = current ? "current" : "not current";
    });
  }
}

const beginning = ({ valid_from: from, created_at: made }) => Date.parse(from ?? made);

/** Return from when to when a record is drawn: until its own end, or until a successor of the chain takes over. */
function spanOf(record, chain) {
  const always = !record.supersedes?.length; // what supersedes nothing has no beginning, unless it says one
  const start = record.valid_from || !always ? Date.parse(record.valid_from ?? record.created_at) : -Infinity;
  const ends = chain.filter(({ supersedes = [] }) => supersedes.includes(record.id)).map((other) => Date.parse(other.valid_from ?? other.created_at));
  if (record.valid_to) ends.push(Date.parse(record.valid_to));
  return [start, Math.min(Infinity, ...ends)];
}

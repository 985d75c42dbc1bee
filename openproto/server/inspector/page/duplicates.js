// Memories that say the same: equal but for case, blanks, and the form of their characters.
import { Listing } from "./api.js";
import { count, el, stored, time } from "./dom.js";
import { standing } from "./table.js";

const MOST_SHOWN = 100;

/** Return what two texts have in common that differ only in case, blanks, form, and a full stop at the end. */
export function normalised(text) {
  return text.normalize("NFKC").toLowerCase().replace(/\s+/gu, " ").trim().replace(/[.!。।؟?]+$/u, "");
}

export class DuplicatesView {
  title = "Duplicates";
  #listing = null;

  constructor(app) {
    this.app = app;
    this.status = el("p", { class: "dim", role: "status" });
    this.groups = el("div");
    this.element = el("section", { class: "page broad" }, el("h2", {}, "Duplicates"), this.status, this.groups);
  }

  reset() {
    this.leave();
    this.groups.replaceChildren();
  }

  leave() {
    this.#listing?.cancel();
    this.#listing = null;
  }

  async refresh() {
    this.leave();
    if (this.app.user === null) {
      this.status.textContent = "";
      return this.#nothing("Whose duplicates?", "Choose a user on the left.");
    }
    const listing = (this.#listing = new Listing(this.app.api, this.app.query));
    try {
      await listing.all((number) => (this.status.textContent = `${count(number, "memory", "memories")} compared`));
    } catch (error) {
      return this.app.fault(error);
    }
    if (listing === this.#listing) this.redraw();
  }

  /** Show the groups of what was read, without what is about to be deleted. */
  redraw() {
    if (!this.#listing?.done) return;
    const groups = new Map();
    for (const { record } of this.app.removals.without(this.#listing.items)) {
      const same = normalised(record.content);
      if (groups.has(same)) groups.get(same).push(record);
      else groups.set(same, [record]);
    }
    const several = [...groups.values()].filter((group) => group.length > 1);
    const read = count(this.#listing.items.length, "memory", "memories");
    const more = several.length > MOST_SHOWN ? `; the first ${MOST_SHOWN} are shown` : "";
    this.status.textContent = `${read} compared: ${count(several.length, "group says", "groups say")} the same${more}`;
    if (!several.length) {
      this.status.textContent = `${read} compared`;
      return this.#nothing("No duplicates", "No two of these memories say the same.");
    }
    this.groups.replaceChildren(...several.slice(0, MOST_SHOWN).map((group) => this.#group(group)));
  }

  #group(records) {
    return el("ul", { class: "same" }, records.map((record) => this.#card(record)));
  }

  #card(record) {
    const { app } = this;
    const how = standing(record);
    return el(
      "li",
      { class: "card" },
      stored(record.content, "p", { class: "content" }),
      el("p", { class: "dim small" }, time(record.created_at), record.scope ? [" · ", stored(record.scope)] : null, (record.tags ?? []).map((tag) => [" ", stored(tag, "bdi", { class: "tag" })]), how && el("span", { class: `standing ${how}` }, how)),
      el(
        "div",
        { class: "row" },
        el("button", { type: "button", click: () => app.life.open(record, { focus: true }) }, "Open"),
        app.mayWrite && el("button", { type: "button", class: "danger", click: () => app.removals.remove(record) }, "Delete"),
      ),
    );
  }

  #nothing(title, text) {
    this.groups.replaceChildren(el("div", { class: "empty" }, el("h2", {}, title), el("p", {}, text)));
  }
}

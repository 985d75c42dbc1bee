// The view of memories: search, filters, the table, and the download of them all.
import { Listing } from "./api.js";
import { count, debounce, el, localInput, say, stored, toWire } from "./dom.js";
import { editMemory } from "./edit.js";
import { Table } from "./table.js";

const MOST_HITS = 100;

export class MemoriesView {
  title = "Memories";
  #listing = null;
  #search = null;
  #hits = null;
  #asked = null;

  constructor(app) {
    this.app = app;
    this.search = el("input", {
      type: "search",
      id: "search",
      placeholder: "Search by meaning and words",
      "aria-label": "Search this user's memories",
      autocomplete: "off",
      dir: "auto",
      input: debounce(() => this.refresh(), 60),
      keydown: (event) => this.#onSearchKey(event),
    });
    this.add = el("button", { type: "button", class: "main", click: () => editMemory(app, null) }, "Add");
    this.download = el("button", { type: "button", click: () => this.#export() }, "Export");
    this.toggle = el("button", { type: "button", "aria-expanded": "false", "aria-controls": "filters", click: () => this.#showFilters(this.filters.hidden) }, "Filters");
    this.filters = this.#filters();
    this.chips = el("div", { class: "chips row wraps" });
    this.status = el("p", { class: "dim small status", role: "status" });
    this.legend = el("ul", { class: "dim small legend", "aria-label": "What scores are made of" });
    this.table = new Table({
      label: "Memories",
      onOpen: (record, options) => app.life.open(record, options),
      onEnd: () => this.#more(),
    });
    this.nothing = el("div", { class: "empty" });
    this.element = el(
      "section",
      { class: "memories", "aria-label": "Memories" },
      el("div", { class: "tools row wraps" }, this.search, this.toggle, this.download, this.add),
      this.filters,
      el("div", { class: "row wraps under" }, this.chips, el("span", { class: "grow" }), this.legend, this.status),
      this.table.element,
      this.nothing,
    );
  }

  focusSearch() {
    this.search.focus();
    this.search.select();
  }

  focusTable() {
    this.table.element.focus();
  }

  reset() {
    this.search.value = "";
    this.#showFields();
  }

  leave() {
    this.#stop();
  }

  /** Ask anew, under the filters as they are. */
  async refresh() {
    this.#stop();
    this.#drawChips();
    const { app } = this;
    const hasUser = app.user !== null;
    for (const control of [this.search, this.toggle, this.download]) control.disabled = !hasUser;
    this.add.hidden = app.key.read_only;
    this.add.disabled = !hasUser;
    if (!hasUser) return this.#showNothing("Whose memories?", "Choose a user, or type the id of one.", "u");
    const asked = (this.#asked = Symbol());
    this.element.setAttribute("aria-busy", "true");
    try {
      if (this.search.value.trim()) await this.#find(this.search.value);
      else await this.#list();
    } catch (error) {
      app.fault(error);
    } finally {
      if (asked === this.#asked) this.element.removeAttribute("aria-busy");
    }
  }

  /** Show what is there without the memories that are about to be deleted. */
  redraw() {
    if (this.#listing) this.#showListing(this.#listing);
    else if (this.#hits) this.#showHits();
  }

  /** Show a changed memory in its place; returns whether that is all that has changed. */
  replace(record) {
    const found = this.#items.find((item) => item.record.id === record.id);
    if (!found || record.supersedes?.length || this.#hits) return false;
    found.record = record;
    this.redraw();
    return true;
  }

  /** Show no deleted memory; returns whether it was shown. */
  drop(record) {
    const index = this.#items.findIndex((item) => item.record.id === record.id);
    if (index >= 0) this.#items.splice(index, 1);
    this.redraw();
    return index >= 0;
  }

  get #items() {
    return this.#listing?.items ?? this.#hits?.items ?? [];
  }

  #stop() {
    this.#listing?.cancel();
    this.#search?.abort();
    this.#listing = this.#search = this.#hits = null;
    this.legend.hidden = true;
  }

  async #list() {
    const listing = (this.#listing = new Listing(this.app.api, this.app.query));
    await listing.more();
    if (listing === this.#listing) this.#showListing(listing);
  }

  async #more() {
    const listing = this.#listing;
    if (!listing || listing.done) return;
    try {
      await listing.more();
    } catch (error) {
      return this.app.fault(error);
    }
    if (listing === this.#listing) this.#showListing(listing);
  }

  #showListing(listing) {
    const items = this.app.removals.without(listing.items);
    this.table.show(items, { of: listing, whole: listing.done });
    this.#tell(listing.done ? count(items.length, "memory", "memories") : `${count(items.length, "memory", "memories")} loaded; more follow as you scroll`);
    this.#showTable(items.length > 0, listing.done);
  }

  async #find(query) {
    this.#search = new AbortController();
    const { signal } = this.#search;
    const { since, until, ...filters } = this.app.query;
    const body = { q: query, limit: MOST_HITS, ...filters, ...(this.app.can("explain") ? { explain: true } : {}) };
    for (const name of ["scope", "as_of"]) if (!body[name]) delete body[name];
    if (!body.tag.length) delete body.tag;
    const started = performance.now();
    const { results } = await this.app.api.send("POST", "memories/search", { body, signal });
    const took = Math.round(performance.now() - started);
    this.#hits = { took, query, items: results.map(({ memory, ...rest }) => ({ record: memory, ...rest })) };
    this.#showHits();
  }

  #showHits() {
    const items = this.app.removals.without(this.#hits.items);
    this.table.show(items, { of: this.#hits, scored: true, query: this.#hits.query });
    this.#tell(`${count(items.length, "hit", "hits")} in ${this.#hits.took} ms, best first`);
    const names = new Set(items.flatMap(({ parts }) => Object.keys(parts ?? {})));
    this.legend.hidden = !names.size;
    this.legend.replaceChildren(...[...names].map((name) => el("li", { "data-part": name }, stored(name))));
    if (items.length) this.#showTable(true);
    else this.#showNothing("Nothing found", "No current memory under these filters answers that.");
  }

  #showTable(any, whole = true) {
    const filtered = Object.values({ ...this.app.query, user_id: "" }).some((value) => value?.length);
    if (any || !whole) {
      this.table.element.hidden = false;
      this.nothing.hidden = true;
    } else if (filtered) this.#showNothing("Nothing under these filters", "Take one away to see more.");
    else this.#showNothing("No memories yet", "What programs store for this user appears here.", "n");
  }

  #showNothing(title, text, key) {
    this.table.show([]);
    this.table.element.hidden = true;
    this.nothing.hidden = false;
    const users = key === "u" && el("button", { type: "button", class: "only-narrow", click: () => this.app.side.focusUsers() }, "Choose a user");
    const add = key === "n" && this.app.mayWrite && el("button", { type: "button", class: "main", click: () => editMemory(this.app, null) }, "Add the first one");
    this.nothing.replaceChildren(el("h2", {}, title), el("p", {}, text), ...[users, add].filter(Boolean));
    if (key) this.#tell("");
  }

  #tell(text) {
    this.status.textContent = text;
  }

  #onSearchKey(event) {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      this.focusTable();
      if (event.key === "ArrowDown") event.preventDefault();
    }
    if (event.key === "Escape" && !this.search.value) this.focusTable();
  }

  #filters() {
    const change = (name) => (event) => this.app.filter({ [name]: toWire(event.target.value) });
    const moments = (label, name) =>
      el("label", { class: "field" }, el("span", {}, label), (this[name] = el("input", { type: "datetime-local", step: "1", id: `filter-${name}`, change: change(name) })));
    this.tag = el("input", { id: "filter-tag", placeholder: "Enter adds it", autocomplete: "off", dir: "auto", keydown: (event) => this.#addTag(event) });
    this.validity = el(
      "select",
      { id: "filter-validity", change: () => this.#setValidity() },
      el("option", { value: "all" }, "Everything stored"),
      el("option", { value: "now" }, "What is current now"),
      el("option", { value: "at" }, "What was current at…"),
    );
    return el(
      "div",
      { id: "filters", class: "filters row wraps", hidden: true },
      el("label", { class: "field" }, el("span", {}, "Tag"), this.tag),
      el("label", { class: "field" }, el("span", {}, "Validity"), this.validity),
      moments("Current at", "at"),
      moments("Made since", "since"),
      moments("Made until", "until"),
    );
  }

  #addTag(event) {
    const tag = this.tag.value;
    if (event.key !== "Enter" || !tag) return;
    this.tag.value = "";
    if (!this.app.filters.tags.includes(tag)) this.app.filter({ tags: [...this.app.filters.tags, tag] });
  }

  #setValidity() {
    const validity = this.validity.value;
    const at = validity === "at" ? this.app.filters.at || new Date().toISOString() : "";
    this.app.filter({ validity, at });
    this.#showFields();
  }

  #showFields() {
    const { filters } = this.app;
    this.validity.value = filters.validity;
    this.at.parentElement.hidden = filters.validity !== "at";
    for (const name of ["at", "since", "until"]) this[name].value = localInput(filters[name]);
  }

  #showFilters(open) {
    this.filters.hidden = !open;
    this.toggle.setAttribute("aria-expanded", String(open));
    this.#showFields();
    if (open) this.tag.focus();
  }

  #drawChips() {
    const { filters } = this.app;
    const chip = (label, text, without) =>
      el("button", { type: "button", class: "chip", click: () => (this.app.filter(without), this.#showFields()) }, `${label} `, stored(text), el("span", { "aria-hidden": "true" }, " ×"), el("span", { class: "for-ears" }, ", take this filter away"));
    this.chips.replaceChildren(
      ...[
        filters.scope && chip("scope", filters.scope, { scope: "" }),
        ...filters.tags.map((tag) => chip("tag", tag, { tags: filters.tags.filter((each) => each !== tag) })),
        filters.validity === "now" && chip("current", "now", { validity: "all" }),
        filters.validity === "at" && chip("current at", localInput(filters.at).replace("T", " "), { validity: "all", at: "" }),
        filters.since && chip("since", localInput(filters.since).replace("T", " "), { since: "" }),
        filters.until && chip("until", localInput(filters.until).replace("T", " "), { until: "" }),
      ].filter(Boolean),
    );
  }

  /** Download all of the user's memories under the filters, as `openproto import` and `restore` read them. */
  async #export() {
    this.download.disabled = true;
    try {
      const listing = new Listing(this.app.api, this.app.query);
      const items = await listing.all((number) => this.#tell(`${count(number, "memory", "memories")} read`));
      const lines = items.reverse().map(({ record }) => `${JSON.stringify(record)}\n`);
      const url = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
      el("a", { href: url, download: "memories.jsonl" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      say(`${count(lines.length, "memory", "memories")} exported`);
      this.#tell(`${count(lines.length, "memory", "memories")} exported`);
    } catch (error) {
      this.app.fault(error);
    } finally {
      this.download.disabled = false;
    }
  }
}

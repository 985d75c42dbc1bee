// The right side: one memory, with everything that is known of it.
import { pathOf } from "./api.js";
import { el, say, stored, time } from "./dom.js";
import { editMemory } from "./edit.js";
import { bar, standing, sumOf } from "./table.js";
import { Timeline } from "./timeline.js";

const FIELDS = [
  ["id", "Id"],
  ["key", "Key"],
  ["user_id", "User"],
  ["scope", "Scope"],
  ["tags", "Tags"],
  ["source", "Source"],
  ["confidence", "Confidence"],
  ["status", "Status"],
  ["created_at", "Made"],
  ["updated_at", "Changed"],
  ["valid_from", "Valid from"],
  ["valid_to", "Valid until"],
  ["supersedes", "Supersedes"],
  ["superseded_by", "Superseded by"],
  ["embedding_model", "Embedded with"],
  ["version", "Version"],
];
const MOMENTS = new Set(["created_at", "updated_at", "valid_from", "valid_to"]);
const LINKS = new Set(["supersedes", "superseded_by"]);

export class Life {
  record = null;
  #returnTo = null;

  constructor(app, element) {
    this.app = app;
    this.element = element;
  }

  /** Show a memory, and as a hit of a search what its score is made of; with `focus`, go there. */
  open(record, { focus = false, hit = null } = {}) {
    const { app } = this;
    if (this.element.hidden) this.#returnTo = document.activeElement;
    this.record = record;
    this.element.hidden = false;
    document.body.classList.add("with-life");
    const how = standing(record);
    const heading = el("h2", { tabindex: "-1" }, "Memory", how && el("span", { class: `standing ${how}` }, how));
    const tools = el(
      "div",
      { class: "row" },
      app.mayWrite && el("button", { type: "button", id: "edit", click: () => editMemory(app, this.record) }, "Edit"),
      app.mayWrite && el("button", { type: "button", id: "delete", class: "danger", click: () => app.removals.remove(this.record) }, "Delete"),
      el("button", { type: "button", id: "close-life", class: "icon", "aria-label": "Close", click: () => this.close() }, "×"),
    );
    const timeline = new Timeline(app, record, (other) => this.open(other, { focus: true }));
    const history = el("section", { class: "history", "aria-label": "Audit" });
    this.element.replaceChildren(
      el("div", { class: "life-head row" }, heading, el("span", { class: "grow" }), tools),
      stored(record.content, "p", { class: "content" }),
      this.#fields(record, hit),
      timeline.element,
      history,
    );
    this.element.scrollTop = 0;
    timeline.start().catch((error) => app.fault(error));
    if (app.can("audit")) this.#audit(record, history).catch((error) => app.fault(error));
    else history.append(el("p", { class: "dim small" }, "This backend keeps no audit log."));
    const covers = matchMedia("(max-width: 760px)").matches;
    document.getElementById("main").inert = covers;
    if (focus || covers) heading.focus();
    else say("Details are shown on the right");
  }

  close() {
    if (this.element.hidden) return;
    this.record = null;
    this.element.hidden = true;
    this.element.replaceChildren();
    document.body.classList.remove("with-life");
    document.getElementById("main").inert = false;
    const back = this.#returnTo;
    if (back?.isConnected && back !== document.body) back.focus();
    else this.app.views.memories.focusTable();
  }

  /** Show the memory of an id. */
  async openId(id) {
    try {
      this.open(await this.app.api.get(pathOf(id), { user_id: this.app.user }), { focus: true });
    } catch (error) {
      if (error.status === 404) this.app.toast("That memory is not there any more.");
      else this.app.fault(error);
    }
  }

  #fields(record, hit) {
    const list = el("dl", { class: "fields" });
    const add = (label, ...value) => list.append(el("div", {}, el("dt", {}, label), el("dd", {}, ...value)));
    if (hit) add("Score", hit.score.toFixed(3), hit.parts ? ` = ${sumOf(hit.parts)}` : "", bar(hit.score, { name: "bar wide", parts: hit.parts }));
    for (const [name, label] of FIELDS) {
      const value = record[name];
      if (value === undefined || value === null || (Array.isArray(value) && !value.length)) continue;
      if (MOMENTS.has(name)) add(label, time(value, { seconds: true }));
      else if (LINKS.has(name)) add(label, [value].flat().map((id) => el("button", { type: "button", class: "link mono", click: () => this.openId(id) }, stored(id))));
      else if (name === "tags") add(label, value.map((tag) => stored(tag, "bdi", { class: "tag" })));
      else if (name === "source") add(label, Object.entries(value).map(([part, text]) => el("div", {}, el("span", { class: "dim" }, `${part} `), stored(text))));
      else add(label, stored(value, "bdi", { class: name === "id" || name === "version" ? "mono" : "" }));
    }
    const known = new Set([...FIELDS.map(([name]) => name), "content"]);
    for (const name of Object.keys(record).filter((each) => !known.has(each))) {
      list.append(el("div", { class: "wide" }, el("dt", {}, stored(name)), el("dd", {}, stored(JSON.stringify(record[name], null, 2), "pre"))));
    }
    return list;
  }

  async #audit(record, section) {
    const { entries } = await this.app.api.get("audit", { user_id: record.user_id, memory_id: record.id, limit: 50 });
    if (!section.isConnected) return;
    section.append(
      el("h3", {}, "Audit"),
      entries.length
        ? el("ol", { class: "entries" }, entries.map((entry) => el("li", {}, time(entry.timestamp), el("b", {}, stored(entry.action)), entry.app ? stored(entry.app, "bdi", { class: "dim" }) : null)))
        : el("p", { class: "dim small" }, "No entry yet: reads appear within a second, and only where they are recorded."),
    );
  }
}

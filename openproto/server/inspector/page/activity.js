// Who did what to the user's memories.
import { el, stored, time } from "./dom.js";

export class ActivityView {
  title = "Activity";

  constructor(app) {
    this.app = app;
    this.list = el("div");
    this.element = el("section", { class: "page" }, el("h2", {}, "Activity"), this.list);
  }

  reset() {
    this.list.replaceChildren();
  }

  async refresh() {
    const { app } = this;
    if (app.user === null) return this.#nothing("Whose activity?", "Choose a user on the left.");
    try {
      const { entries } = await app.api.get("audit", { user_id: app.user, limit: 500 });
      if (!entries.length) return this.#nothing("Nothing recorded", "Calls for this user appear here; reads only where the backend records them.");
      this.list.replaceChildren(
        el(
          "div",
          { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Audit entries" },
          el(
            "table",
            { class: "plain" },
            el("thead", {}, el("tr", {}, ["When", "What", "Program", "Memory", "Scope"].map((text) => el("th", { scope: "col" }, text)))),
            el("tbody", {}, entries.map((entry) => this.#row(entry))),
          ),
        ),
      );
    } catch (error) {
      app.fault(error);
    }
  }

  #row(entry) {
    const { memory_id: id, app, scope } = entry;
    const open = () => this.app.life.openId(id);
    return el(
      "tr",
      {},
      el("td", {}, time(entry.timestamp, { seconds: true })),
      el("td", {}, stored(entry.action)),
      el("td", {}, app ? stored(app) : null),
      el("td", {}, id ? el("button", { type: "button", class: "link mono", click: open }, stored(id)) : null),
      el("td", {}, scope ? stored(scope) : null),
    );
  }

  #nothing(title, text) {
    this.list.replaceChildren(el("div", { class: "empty" }, el("h2", {}, title), el("p", {}, text)));
  }
}

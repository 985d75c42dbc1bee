// Deleting is final, so it waits: for some seconds it can be taken back, and nothing has happened yet.
import { ifMatch, pathOf } from "./api.js";
import { el, shorten, stored } from "./dom.js";

const SECONDS = 8;

export class Removals {
  #waiting = new Map();

  constructor(app) {
    this.app = app;
    // Who leaves the page has decided; the request outlives it.
    window.addEventListener("pagehide", () => this.flush({ keepalive: true }));
  }

  /** Take a memory away, for good in some seconds. */
  remove(record) {
    const { app } = this;
    const close = app.toast(el("span", {}, "Deleted: ", stored(shorten(record.content))), {
      seconds: SECONDS,
      action: { label: "Undo", run: () => this.undo(record.id) },
    });
    const timer = setTimeout(() => this.#run(record.id), SECONDS * 1000);
    this.#waiting.set(record.id, { record, close, timer });
    app.life.close();
    app.view.redraw?.();
  }

  /** Take back the last removal, or the one of an id. */
  undo(id = [...this.#waiting.keys()].at(-1)) {
    const found = this.#waiting.get(id);
    if (!found || found.sent) return;
    clearTimeout(found.timer);
    found.close();
    this.#waiting.delete(id);
    this.app.view.redraw?.();
    this.app.life.open(found.record, { focus: true });
  }

  /** Delete now what waits. */
  flush(options = {}) {
    for (const id of [...this.#waiting.keys()]) this.#run(id, options);
  }

  /** Return the items without those that wait. */
  without(items) {
    return this.#waiting.size ? items.filter(({ record }) => !this.#waiting.has(record.id)) : items;
  }

  async #run(id, options = {}) {
    const found = this.#waiting.get(id);
    if (found.sent) return;
    found.sent = true;
    const { record, close, timer } = found;
    clearTimeout(timer);
    close();
    try {
      await this.app.api.send("DELETE", pathOf(id), { query: { user_id: record.user_id }, headers: ifMatch(record), ...options });
      this.#waiting.delete(id);
      if (!options.keepalive) this.app.gone(record);
    } catch (error) {
      this.#waiting.delete(id);
      if (error.status === 412) error.message = "It was changed meanwhile and is kept. Look at it again before you delete it.";
      if (error.status !== 404) this.app.fault(error);
      this.app.refresh();
    }
  }
}

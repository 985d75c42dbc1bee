// The frame of the page: who is asked about, which view is shown, and the keys that lead there.
import { Api, ApiError } from "./api.js";
import { ActivityView } from "./activity.js";
import { ContextView } from "./context.js";
import { el, stored } from "./dom.js";
import { DuplicatesView } from "./duplicates.js";
import { FiguresView } from "./figures.js";
import { showHelp, showLogin } from "./dialogs.js";
import { editMemory } from "./edit.js";
import { Life } from "./life.js";
import { MemoriesView } from "./memories.js";
import { Side } from "./side.js";
import { Removals } from "./removals.js";

const byId = (id) => document.getElementById(id);

class App {
  api = new Api();
  capabilities = null;
  key = { users: null, read_only: false };
  user = null;
  filters = { scope: "", tags: [], validity: "all", at: "", since: "", until: "" };
  shortcuts = true;

  constructor() {
    this.removals = new Removals(this);
    this.side = new Side(this, byId("side"));
    this.life = new Life(this, byId("life"));
    this.views = {
      memories: new MemoriesView(this),
      context: new ContextView(this),
      duplicates: new DuplicatesView(this),
      activity: new ActivityView(this),
      figures: new FiguresView(this),
    };
    for (const [name, view] of Object.entries(this.views)) {
      byId("views").append(el("a", { href: `#${name}`, id: `to-${name}` }, view.title));
    }
    this.api.onUnauthorized = (error) => this.signOut(error.message);
    window.addEventListener("hashchange", () => (this.life.close(), this.show()));
    document.addEventListener("keydown", (event) => this.onKey(event));
    byId("help").addEventListener("click", () => showHelp(this));
    byId("sign-out").addEventListener("click", () => this.signOut());
    byId("open-side").addEventListener("click", () => this.side.toggle());
  }

  /** Ask for a key where the server wants one; then show what it may see. */
  async start() {
    if (document.body.dataset.login === "yes") showLogin(this);
    else await this.enter();
  }

  /** Learn what the key may do; raises what the server refuses. */
  async enter() {
    const [capabilities, status] = await Promise.all([this.api.get("capabilities"), this.api.get("ui/status")]);
    this.capabilities = capabilities;
    this.key = status.key;
    byId("provider").textContent = capabilities.provider + (this.key.read_only ? " · this key may only read" : "");
    byId("sign-out").hidden = document.body.dataset.login !== "yes";
    byId("to-figures").hidden = this.key.users !== null;
    byId("to-activity").hidden = !this.can("audit");
    this.show();
    await this.side.start();
  }

  /** Forget the key and everything that it opened. */
  signOut(reason = "") {
    this.removals.flush();
    this.api.use("");
    this.life.close();
    this.choose(null);
    this.side.clear();
    byId("sign-out").hidden = true;
    showLogin(this, reason);
  }

  /** Whether the backend has a verb or an operation. */
  can(what) {
    const { verbs, "x-openproto": { support = {} } = {} } = this.capabilities ?? { verbs: [] };
    return verbs.includes(what) || (support[what] ?? "none") !== "none";
  }

  /** Whether this key may change something of the user at hand. */
  get mayWrite() {
    return this.user !== null && !this.key.read_only;
  }

  /** The filters as the protocol's query. */
  get query() {
    const { scope, tags, validity, at, since, until } = this.filters;
    const asOf = { now: () => new Date().toISOString(), at: () => at, all: () => "" }[validity]();
    return { user_id: this.user, scope, tag: tags, as_of: asOf, since, until };
  }

  /** Ask about another user, or about none. */
  choose(user) {
    this.removals.flush();
    this.user = user;
    this.filters = { ...this.filters, scope: "", tags: [] };
    this.life.close();
    for (const view of Object.values(this.views)) view.reset?.();
    this.side.showChosen();
    this.refresh();
  }

  /** Narrow what is shown. */
  filter(changes) {
    Object.assign(this.filters, changes);
    this.side.showChosen();
    this.refresh();
  }

  /** Load again what the view shows. */
  refresh() {
    this.view.refresh();
  }

  /** A memory was written: show it where it stands. */
  changed(record) {
    this.side.loadScopes();
    if (!this.view.replace?.(record)) this.refresh();
    this.life.open(record);
  }

  /** A memory is gone. */
  gone(record) {
    if (this.user !== record.user_id) return;
    this.side.loadScopes();
    if (!this.view.drop?.(record)) this.refresh();
  }

  get view() {
    return this.views[location.hash.slice(1)] ?? this.views.memories;
  }

  /** Show the view that the address names. */
  show() {
    const view = this.view;
    for (const [name, each] of Object.entries(this.views)) {
      const link = byId(`to-${name}`);
      if (each === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      if (each !== view) each.leave?.();
    }
    byId("main").replaceChildren(view.element);
    view.refresh();
  }

  /** Show what went wrong, where the reader looks; what was given up on purpose is no fault. */
  fault(error) {
    if (error.name === "AbortError") return;
    const known = error instanceof ApiError;
    if (!known) console.error(error);
    if (known && error.status === 401) return;
    const words = known ? explain(error) : "A fault of this page. Load it again; if it happens once more, report it.";
    const note = error.requestId ? el("span", { class: "dim small" }, ` request ${error.requestId}`) : null;
    this.toast(el("span", {}, stored(words), note), { seconds: 12, alert: true });
  }

  /** Show a message for some seconds; returns what takes it away. */
  toast(content, { seconds = 5, action = null, alert = false } = {}) {
    const close = () => toast.remove();
    const toast = el(
      "div",
      { class: `toast ${alert ? "alert" : ""}`, role: alert ? "alert" : "status" },
      content,
      action && el("button", { type: "button", click: () => (close(), action.run()) }, action.label),
      el("button", { type: "button", class: "icon", "aria-label": "Dismiss", click: close }, "×"),
    );
    byId("toasts").append(toast);
    setTimeout(close, seconds * 1000);
    return close;
  }

  onKey(event) {
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (event.key === "Escape" && !typing && !this.life.element.hidden) this.life.close();
    if (typing || !this.shortcuts || event.ctrlKey || event.metaKey || event.altKey) return;
    const views = Object.keys(this.views);
    const run = {
      "?": () => showHelp(this),
      "/": () => this.goTo("memories", () => this.views.memories.focusSearch()),
      n: () => this.mayWrite && editMemory(this, null),
      e: () => this.mayWrite && this.life.record && editMemory(this, this.life.record),
      d: () => this.mayWrite && this.life.record && this.removals.remove(this.life.record),
      z: () => this.removals.undo(),
      u: () => this.side.focusUsers(),
      t: () => this.goTo("memories", () => this.views.memories.focusTable()),
    }[event.key];
    const view = views[Number(event.key) - 1];
    if (run) run();
    else if (view && !byId(`to-${view}`).hidden) location.hash = view;
    else return;
    event.preventDefault();
  }

  goTo(view, then) {
    if (this.view !== this.views[view]) {
      location.hash = view;
      this.show();
    }
    then();
  }
}

/** Return what an error means to the reader, naming the right that is missing. */
function explain(error) {
  if (error.code === "scope_denied") return `This key does not have the right: ${error.message}`;
  if (error.code === "unsupported_capability") return `This backend cannot do that: ${error.message}`;
  return error.message || `The server answered ${error.status} without a reason.`;
}

const app = new App();
app.start().catch((error) => app.fault(error));

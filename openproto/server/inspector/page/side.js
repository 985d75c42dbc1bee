// The left side: users, page by page, and the scopes of the chosen one as a tree.
import { el, say, stored } from "./dom.js";

export class Side {
  #cursor = null;
  #open = new Set();
  #scopes = null;

  constructor(app, element) {
    this.app = app;
    this.element = element;
    this.find = el("input", {
      type: "search",
      id: "find-user",
      placeholder: "Find or type a user id",
      "aria-label": "Find a user; Enter opens the id as typed",
      autocomplete: "off",
      spellcheck: "false",
      input: () => this.#narrow(),
      keydown: (event) => event.key === "Enter" && this.find.value && this.#take(this.find.value),
    });
    this.users = el("ul", { class: "users" });
    this.more = el("button", { type: "button", class: "link small", hidden: true, click: () => this.#loadUsers() }, "More users");
    this.note = el("p", { class: "dim small", hidden: true });
    this.tree = el("div");
    element.append(
      el("section", { "aria-labelledby": "users-title" }, el("h3", { id: "users-title" }, "Users"), this.find, this.note, this.users, this.more),
      el("section", { "aria-labelledby": "scopes-title" }, el("h3", { id: "scopes-title" }, "Scopes"), this.tree),
    );
  }

  async start() {
    this.clear();
    const { key } = this.app;
    if (key.users) {
      for (const user of key.users) this.#addUser(user);
      this.find.hidden = key.users.length < 8;
      this.#tell("This key opens these users only.");
    } else if (this.app.can("users")) {
      await this.#loadUsers().catch((error) => this.app.fault(error));
      this.#tell(this.users.childElementCount ? "" : "Nobody has a memory yet.");
    } else this.#tell("This backend cannot list its users: type an id.");
    if (this.users.childElementCount === 1 && !this.#cursor) this.#take(this.users.firstChild.dataset.user);
  }

  clear() {
    this.#cursor = this.#scopes = null;
    this.#open.clear();
    this.users.replaceChildren();
    this.tree.replaceChildren();
    this.more.hidden = true;
    this.#tell("");
  }

  focusUsers() {
    this.toggle(true);
    (this.find.hidden ? this.users.querySelector("button") : this.find)?.focus();
  }

  /** Open or close the side, where the window is narrow and it lies over the page. */
  toggle(open = !this.element.classList.contains("open")) {
    this.element.classList.toggle("open", open);
    document.getElementById("open-side").setAttribute("aria-expanded", String(open));
  }

  /** Mark the user and the scope that the page is about. */
  showChosen() {
    for (const item of this.users.children) mark(item.firstChild, item.dataset.user === this.app.user);
    if (this.#scopes?.user !== this.app.user) this.loadScopes();
    else this.#drawTree();
  }

  async loadScopes() {
    const { app } = this;
    const user = app.user;
    this.#scopes = { user, root: null };
    if (user === null || !app.can("scopes")) return this.tree.replaceChildren(el("p", { class: "dim small" }, user === null ? "Choose a user first." : "This backend cannot list scopes."));
    try {
      const { scopes } = await app.api.get("scopes", { user_id: user });
      if (user !== app.user) return;
      this.#scopes = { user, root: treeOf(scopes) };
      this.#drawTree();
    } catch (error) {
      app.fault(error);
    }
  }

  #take(user) {
    this.toggle(false);
    this.find.value = "";
    this.#narrow();
    if (![...this.users.children].some((item) => item.dataset.user === user)) this.#addUser(user, true);
    this.app.choose(user);
    say(`Memories of ${user}`);
  }

  async #loadUsers() {
    const page = await this.app.api.get("users", { limit: 200, cursor: this.#cursor });
    for (const user of page.items) this.#addUser(user);
    this.#cursor = page.next_cursor ?? null;
    this.more.hidden = this.#cursor === null;
    this.#narrow();
  }

  #addUser(user, first = false) {
    const item = el("li", {}, el("button", { type: "button", click: () => this.#take(user) }, stored(user)));
    item.dataset.user = user;
    if (first) this.users.prepend(item);
    else this.users.append(item);
  }

  #narrow() {
    const wanted = this.find.value.toLowerCase();
    for (const item of this.users.children) item.hidden = !item.dataset.user.toLowerCase().includes(wanted);
  }

  #tell(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  #drawTree() {
    const { root } = this.#scopes;
    if (!root) return;
    const all = el("button", { type: "button", click: () => this.#filter("") }, "Every scope, and none");
    mark(all, this.app.filters.scope === "");
    const focused = this.tree.contains(document.activeElement) ? document.activeElement.dataset.path : null;
    this.tree.replaceChildren(el("ul", { class: "tree" }, el("li", {}, el("span", { class: "node" }, el("span", { class: "twist" }), all)), this.#branches(root)));
    if (focused) [...this.tree.querySelectorAll("button")].find((button) => button.dataset.path === focused)?.focus();
  }

  #branches(node) {
    return [...node.children.values()].map((child) => this.#branch(child));
  }

  #branch(node) {
    const opens = node.children.size > 0;
    const open = this.#open.has(node.path);
    const flip = () => {
      if (open) this.#open.delete(node.path);
      else this.#open.add(node.path);
      this.#drawTree();
    };
    const twist = opens
      ? el("button", { type: "button", class: "twist", "aria-expanded": String(open), "aria-label": `Scopes in ${node.path}`, "data-path": `twist:${node.path}`, click: flip }, open ? "▾" : "▸")
      : el("span", { class: "twist" });
    const keys = (event) => {
      if (opens && event.key === (open ? "ArrowLeft" : "ArrowRight")) flip();
    };
    const name = el(
      "button",
      { type: "button", title: node.path, "data-path": node.path, click: () => this.#filter(node.path), keydown: keys },
      stored(node.name),
      el("span", { class: "count" }, el("span", { class: "for-ears" }, ", "), node.records.toLocaleString("en"), el("span", { class: "for-ears" }, node.records === 1 ? " memory" : " memories")),
    );
    mark(name, this.app.filters.scope === node.path);
    return el("li", {}, el("span", { class: "node" }, twist, name), opens && open ? el("ul", {}, this.#branches(node)) : null);
  }

  #filter(scope) {
    this.toggle(false);
    this.app.filter({ scope });
  }
}

function mark(button, on) {
  if (on) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

/** Return the tree of scopes; each node counts what it holds and all beneath it. */
export function treeOf(scopes) {
  const root = { children: new Map(), records: 0 };
  for (const { scope, records } of scopes) {
    let node = root;
    let path = null;
    for (const name of scope.split("/")) {
      path = path === null ? name : `${path}/${name}`;
      if (!node.children.has(name)) node.children.set(name, { name, path, children: new Map(), records: 0 });
      node = node.children.get(name);
      node.records += records;
    }
  }
  return root;
}

// What a prompt would be given: the context for a question, within a budget of tokens.
import { count, el, stored } from "./dom.js";
import { bar } from "./table.js";

export class ContextView {
  title = "Context";

  constructor(app) {
    this.app = app;
    this.query = el("textarea", { id: "question", rows: "2", dir: "auto", placeholder: "What should I serve Ada?", required: true, keydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.#ask() });
    this.budget = el("input", { type: "number", id: "budget", min: "1", max: "100000", value: "500", required: true });
    this.relevant = el("input", { type: "checkbox", id: "relevant" });
    this.button = el("button", { class: "main" }, "Build");
    this.answer = el("div", { "aria-live": "polite" });
    this.element = el(
      "section",
      { class: "page" },
      el("h2", {}, "The context of a prompt"),
      el("p", { class: "dim" }, "What a program that calls ", el("code", {}, "context"), " would put before its model, under the scope, the tags, and the moment of the filters."),
      el(
        "form",
        { submit: (event) => (event.preventDefault(), this.#ask()) },
        el("label", { class: "field" }, el("span", {}, "Question"), this.query),
        el("div", { class: "row wraps" }, el("label", { class: "row" }, "Budget in tokens", this.budget), el("label", { class: "row" }, this.relevant, "Only what a search finds"), el("span", { class: "grow" }), this.button),
      ),
      this.answer,
    );
  }

  reset() {
    this.answer.replaceChildren();
  }

  refresh() {
    this.button.disabled = this.app.user === null;
    this.button.title = this.app.user === null ? "Choose a user first" : "";
  }

  async #ask() {
    const { app } = this;
    const { scope, tag, as_of, user_id } = app.query;
    const budget = Number(this.budget.value);
    const body = { query: this.query.value, user_id, token_budget: budget, relevant_only: this.relevant.checked };
    if (scope) body.scope = scope;
    if (tag.length) body.tag = tag;
    if (as_of) body.as_of = as_of;
    if (!body.query.trim()) return this.query.focus();
    try {
      this.#show(await app.api.send("POST", "context", { body }), budget);
    } catch (error) {
      app.fault(error);
    }
  }

  #show({ text, citations, token_count: tokens }, budget) {
    if (!text) return this.answer.replaceChildren(el("div", { class: "empty" }, el("h2", {}, "Nothing to say"), el("p", {}, "No memory under these filters fits the question and the budget.")));
    this.answer.replaceChildren(
      el("div", { class: "row meter" }, bar(tokens / budget, { name: "bar wide" }), el("span", {}, `${tokens.toLocaleString("en")} of ${budget.toLocaleString("en")} tokens`)),
      el("div", { class: "prompt" }, text.split("\n").map((line) => stored(line, "p"))),
      el("h3", {}, count(citations.length, "memory cited", "memories cited")),
      el("ol", { class: "citations" }, citations.map(({ memory_id: id, score }) => el("li", {}, el("span", { class: "score" }, score ? score.toFixed(3) : "recent", bar(score)), el("button", { type: "button", class: "link mono", click: () => this.app.life.openId(id) }, stored(id))))),
    );
  }
}

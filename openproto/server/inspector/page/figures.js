// How busy the server is: figures of the process that answers, every two seconds.
import { el, svg } from "./dom.js";

const EVERY = 2000;
const KEPT = 60;

export class FiguresView {
  title = "Figures";
  #timer = 0;
  #rates = [];
  #last = null;

  constructor(app) {
    this.app = app;
    this.cards = el("dl", { class: "cards" });
    this.graph = svg("svg", { viewBox: `0 0 ${KEPT - 1} 40`, preserveAspectRatio: "none", class: "graph", role: "img", "aria-label": "Calls a second in the last two minutes" });
    this.figure = el("figure", { hidden: true }, this.graph, el("figcaption", { class: "dim small" }, "Calls a second, the last two minutes"));
    this.rows = el("tbody");
    const heads = ["Verb", "Calls", "Errors", "Cancelled", "Retries", "Median", "p95", "Longest"];
    this.element = el(
      "section",
      { class: "page" },
      el("h2", {}, "Figures"),
      el("p", { class: "dim" }, "Of this server process since it started; latencies of the latest 1,000 calls of a verb."),
      this.cards,
      this.figure,
      el(
        "div",
        { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Figures of each verb" },
        el("table", { class: "plain numbers" }, el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)))), this.rows),
      ),
    );
  }

  leave() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  async refresh() {
    this.leave();
    if (this.app.key.users !== null || !this.app.capabilities) return;
    try {
      if (!document.hidden) this.#show((await this.app.api.get("ui/status")).figures);
    } catch (error) {
      return this.app.fault(error);
    }
    if (this.app.view === this) this.#timer = setTimeout(() => this.refresh(), EVERY);
  }

  #show(figures) {
    const now = performance.now();
    if (this.#last) this.#rates.push(Math.max(0, figures.calls - this.#last.calls) / ((now - this.#last.at) / 1000));
    this.#rates = this.#rates.slice(-KEPT);
    this.#last = { calls: figures.calls, at: now };
    const cards = [
      ["Calls", figures.calls],
      ["In flight", figures.in_flight],
      ["Errors", figures.errors],
      ["Cancelled", figures.cancelled],
      ["Retries", figures.retries],
    ];
    this.cards.replaceChildren(...cards.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value.toLocaleString("en")))));
    const highest = Math.max(1, ...this.#rates);
    const points = this.#rates.map((rate, index) => `${KEPT - this.#rates.length + index},${(38 - (rate / highest) * 36).toFixed(2)}`);
    this.figure.hidden = points.length < 2;
    this.graph.replaceChildren(svg("polyline", { points: points.join(" "), fill: "none", "vector-effect": "non-scaling-stroke" }));
    const verbs = Object.entries(figures.verbs).sort(([, a], [, b]) => b.calls - a.calls);
    this.rows.replaceChildren(
      ...verbs.map(([verb, { calls, errors, cancelled, retries, p50, p95, longest }]) =>
        el("tr", {}, el("th", { scope: "row" }, verb), [calls, errors, cancelled, retries].map((value) => el("td", {}, value.toLocaleString("en"))), [p50, p95, longest].map((value) => el("td", {}, milliseconds(value)))),
      ),
    );
  }
}

function milliseconds(seconds) {
  const value = seconds * 1000;
  return `${value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(1)} ms`;
}

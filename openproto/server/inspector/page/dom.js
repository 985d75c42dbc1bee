// Building the page. Whatever is stored reaches it as the text of a node and never as markup.

/** Return an element. Functions among the attributes are listeners; strings among the children are text. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return stored text as an element that takes the text's own direction and keeps it from its neighbours. */
export function stored(text, tag = "bdi", attributes = {}) {
  return el(tag, { dir: "auto", ...attributes }, String(text));
}

/** Return the beginning of a text. */
export function shorten(text, most = 60) {
  const characters = [...text.slice(0, most * 2)];
  return characters.length > most ? `${characters.slice(0, most).join("")}…` : text;
}

/** Return stored text likewise, with the words of a query marked where a word begins with one. */
export function marked(text, query) {
  const words = query.split(/[^\p{L}\p{M}\p{N}]+/u).filter(Boolean);
  if (!words.length) return stored(text);
  const parts = text.split(new RegExp(`(?<![\\p{L}\\p{N}])(${words.join("|")})`, "giu"));
  return el("bdi", { dir: "auto" }, parts.map((part, index) => (index % 2 ? el("mark", {}, part) : part)));
}

/** Return an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const two = (number) => String(number).padStart(2, "0");

/** Return a moment in the reader's time zone, in columns of one width: 2026-01-31 12:00. */
export function moment(value, { seconds = false } = {}) {
  const date = new Date(value);
  if (Number.isNaN(date.getTime())) return String(value);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}${seconds ? `:${two(date.getSeconds())}` : ""}`;
}

/** Return a moment as an element that carries it exactly. */
export function time(value, options) {
  return el("time", { datetime: String(value), title: String(value) }, moment(value, options));
}

/** Return what a field of type datetime-local wants for a moment: local time to the second. */
export function localInput(value) {
  return value ? moment(value, { seconds: true }).replace(" ", "T") : "";
}

/** Return the protocol's spelling of a local time, with its offset; "" where none is given. */
export function toWire(local) {
  return local ? new Date(local).toISOString() : "";
}

/** Return a count with its noun: 1 memory, 2,000 memories. */
export function count(number, one, many) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** Say something to people who listen to the page. */
export function say(text) {
  const said = document.getElementById("said");
  if (said) said.textContent = text;
}

/** Return a function that waits until its caller has been quiet for a while. */
export function debounce(run, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), milliseconds);
  };
}

// The server's own OpenAPI document, laid out for reading.
import { el } from "./dom.js";

const nav = document.getElementById("routes");
const main = document.getElementById("main");

async function start() {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(`/openapi.json answered ${response.status}`);
  const description = await response.json();
  const { title, version, summary } = description.info;
  nav.append(el("h1", {}, el("img", { src: "docs/icon.svg", alt: "", width: "22", height: "22" }), title));
  main.append(
    el("h2", {}, summary ?? title),
    el("p", { class: "dim" }, `${title} ${version}. The same as a file: `, el("a", { href: "openapi.json" }, "openapi.json"), security(description)),
  );
  const operations = Object.entries(description.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method, ...operation })));
  for (const operation of operations) {
    const id = `${operation.method}${operation.path.replace(/[^a-z]+/gi, "-")}`;
    nav.append(el("a", { href: `#${id}` }, methodOf(operation), el("span", {}, operation.path)));
    main.append(article(operation, id, description));
  }
  main.append(el("h2", { class: "models" }, "Models"));
  nav.append(el("h3", {}, "Models"));
  for (const [name, schema] of Object.entries(description.components.schemas)) {
    nav.append(el("a", { href: `#model-${name}` }, name));
    main.append(model(name, schema));
  }
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

/** Return the nodes of a text in which backticks mark code. */
function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
}

function security({ components }) {
  return components.securitySchemes ? ". Every route but the open ones wants an API key, as Authorization: Bearer or as X-API-Key." : ". This server asks for no API key.";
}

function methodOf({ method }) {
  return el("span", { class: `method ${method}` }, method.toUpperCase());
}

function article(operation, id, description) {
  const { path, parameters = [], requestBody, responses } = operation;
  const body = requestBody && Object.values(requestBody.content)[0].schema;
  const [good, bad] = split(Object.entries(responses), ([status]) => status < "400");
  return el(
    "article",
    { id },
    el("h2", {}, methodOf(operation), el("span", {}, path)),
    el("p", {}, prose(operation.description ?? operation.summary ?? ""), description.components.securitySchemes && !operation.security ? " Needs no key." : ""),
    parameters.length ? [el("h3", {}, "Parameters"), table(["Name", "In", "Type", ""], parameters.map((each) => [name(each.name, each.required), each.in, typeOf(each.schema), note(each, each.schema)]))] : null,
    body ? [el("h3", {}, "Body"), el("p", {}, typeOf(body))] : null,
    el("h3", {}, "Answers"),
    table(["Status", "Body", ""], good.map(([status, answer]) => [status, answer.content ? typeOf(Object.values(answer.content)[0].schema) : "", headersOf(answer)])),
    el("details", {}, el("summary", {}, "Refusals and failures"), table(["Status", ""], bad.map(([status, answer]) => [status, answer.description]))),
  );
}

function model(modelName, schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([key, each]) => [name(key, required.has(key)), typeOf(each), note(each, each)]);
  return el("article", { id: `model-${modelName}` }, el("h2", {}, modelName), el("p", {}, prose(schema.description ?? "")), rows.length ? table(["Member", "Type", ""], rows) : null);
}

function name(text, required) {
  return [text, required ? el("span", { class: "required" }, "required") : null];
}

function headersOf({ headers = {} }) {
  const names = Object.keys(headers);
  return names.length ? `Headers: ${names.join(", ")}` : "";
}

function table(heads, rows) {
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, heads.map((text) => (text ? el("th", { scope: "col" }, text) : el("td"))))),
    el("tbody", {}, rows.map(([first, ...others]) => el("tr", {}, el("th", { scope: "row" }, first), others.map((cell, index) => el("td", { class: heads[index + 1] === "Type" ? "type" : "" }, cell))))),
  );
}

/** Return a schema as a person would say it; names of models are links. */
function typeOf(schema = {}) {
  if (schema.$ref) {
    const model = schema.$ref.split("/").at(-1);
    return el("a", { href: `#model-${model}` }, model);
  }
  const several = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (several) return join(several.map(typeOf), " or ");
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return el("span", {}, "list of ", typeOf(schema.items ?? {}));
  return schema.format ?? schema.type ?? "any JSON";
}

function join(parts, between) {
  return el("span", {}, parts.flatMap((part, index) => (index ? [between, part] : [part])));
}

function note({ description }, schema = {}) {
  const inner = schema.anyOf?.find((each) => each.type !== "null") ?? schema;
  const limits = [
    inner.minLength !== undefined && `at least ${inner.minLength} characters`,
    inner.maxLength !== undefined && `at most ${inner.maxLength.toLocaleString("en")} characters`,
    inner.minimum !== undefined && `from ${inner.minimum}`,
    inner.maximum !== undefined && `to ${inner.maximum}`,
    inner.maxItems !== undefined && `at most ${inner.maxItems} items`,
    schema.default !== undefined && schema.default !== null && `${JSON.stringify(schema.default)} by default`,
  ];
  return prose([description, limits.filter(Boolean).join(", ")].filter(Boolean).join("; "));
}

function split(items, test) {
  return [items.filter(test), items.filter((item) => !test(item))];
}

start().catch((error) => {
  main.replaceChildren(el("p", { class: "fault", role: "alert" }, `The description of the routes cannot be shown: ${error.message}. Load the page again.`));
});

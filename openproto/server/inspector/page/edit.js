// Adding a memory, changing one, and what happens where somebody else has changed it meanwhile.
import { ifMatch, pathOf } from "./api.js";
import { openDialog } from "./dialogs.js";
import { el, localInput, stored, toWire } from "./dom.js";

const lines = (text) => text.split("\n").filter((line) => line.trim());

/** The fields of the form: how each reads a record, and how its value is spelled on the wire, undefined for none. */
const FIELDS = {
  content: { read: (record) => record.content ?? "", wire: (text) => text },
  scope: { read: (record) => record.scope ?? "", wire: (text) => text || undefined },
  tags: { read: (record) => (record.tags ?? []).join("\n"), wire: (text) => (text.trim() ? lines(text) : undefined) },
  confidence: { read: (record) => String(record.confidence ?? ""), wire: (text) => (text === "" ? undefined : Number(text)) },
  valid_from: { read: (record) => localInput(record.valid_from), wire: (text) => toWire(text) || undefined },
  valid_to: { read: (record) => localInput(record.valid_to), wire: (text) => toWire(text) || undefined },
  key: { read: (record) => record.key ?? "", wire: (text) => text || undefined },
  supersedes: { read: (record) => (record.supersedes ?? []).join("\n"), wire: (text) => (text.trim() ? lines(text) : undefined) },
};

/** Ask for a new memory, or for changes to `record`; `given` are values to begin with. */
export function editMemory(app, record, given = {}) {
  const inputs = {};
  const before = {}; // as the inputs spell it: a textarea has its own line breaks
  const field = (name, label, tag, attributes = {}, hint = null) => {
    inputs[name] = el(tag, { id: `edit-${name}`, autocomplete: "off", dir: "auto", ...attributes });
    inputs[name].value = FIELDS[name].read(record ?? { scope: app.filters.scope });
    before[name] = inputs[name].value;
    inputs[name].value = given[name] ?? before[name];
    return el("label", { class: "field" }, el("span", {}, label), inputs[name], hint && el("small", {}, hint));
  };
  const fault = el("p", { class: "fault", role: "alert", hidden: true });
  const save = el("button", { class: "main" }, record ? "Save" : "Add");
  const dialog = openDialog(
    { id: "edit-dialog", "aria-labelledby": "edit-title", class: "roomy" },
    el(
      "form",
      { submit: (event) => (event.preventDefault(), submit()), keydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && submit() },
      el("h2", { id: "edit-title" }, record ? "Edit the memory" : ["Add a memory for ", stored(app.user)]),
      fault,
      field("content", "What is to be remembered", "textarea", { rows: "4", required: true }),
      el("div", { class: "pair" }, field("scope", "Scope", "input", { placeholder: "food/drinks" }), field("confidence", "Confidence", "input", { type: "number", min: "0", max: "1", step: "any", placeholder: "0 to 1" })),
      field("tags", "Tags", "textarea", { rows: "2" }, "One on each line."),
      el("div", { class: "pair" }, record ? null : field("valid_from", "Valid from", "input", { type: "datetime-local", step: "1" }), field("valid_to", "Valid until", "input", { type: "datetime-local", step: "1" })),
      el("div", { class: "pair" }, record || !app.can("key") ? null : field("key", "Key", "input"), field("supersedes", "Supersedes", "textarea", { rows: "1" }, "Ids, one on each line.")),
      record && !record.version ? el("p", { class: "dim small" }, "This backend has no versions: a change made elsewhere meanwhile would be overwritten.") : null,
      el("div", { class: "row" }, el("span", { class: "grow" }), el("button", { type: "button", click: () => dialog.close() }, "Cancel"), save),
    ),
  );
  inputs.content.focus();

  async function submit() {
    if (!dialog.querySelector("form").reportValidity()) return;
    save.disabled = true;
    try {
      const saved = record ? await change() : await add();
      dialog.close();
      if (saved) app.changed(saved);
    } catch (error) {
      if (error.status === 412) {
        dialog.close();
        return showConflict(app, record, values());
      }
      fault.textContent = error.message;
      fault.hidden = false;
    } finally {
      save.disabled = false;
    }
  }

  function values() {
    return Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
  }

  function add() {
    const body = { user_id: app.user };
    for (const [name, text] of Object.entries(values())) body[name] = FIELDS[name].wire(text);
    return app.api.send("POST", "memories", { body });
  }

  function change() {
    const body = {};
    for (const [name, text] of Object.entries(values())) {
      if (text !== before[name]) body[name] = FIELDS[name].wire(text) ?? null;
    }
    if (!Object.keys(body).length) return null;
    return app.api.send("PATCH", pathOf(record.id), { query: { user_id: record.user_id }, body, headers: ifMatch(record) });
  }
}

/** Show what is stored now next to what was written here, and let the reader choose. */
async function showConflict(app, seen, mine) {
  let stored_;
  try {
    stored_ = await app.api.get(pathOf(seen.id), { user_id: seen.user_id });
  } catch (error) {
    return app.fault(error);
  }
  const side = (title, value) =>
    el(
      "section",
      { class: "card" },
      el("h3", {}, title),
      el("dl", { class: "fields" }, Object.keys(mine).map((name) => {
        const differs = mine[name] !== FIELDS[name].read(stored_);
        return value(name) || differs ? el("div", { class: differs ? "differs" : "" }, el("dt", {}, name.replace("_", " ")), el("dd", {}, stored(value(name) || "none"))) : null;
      })),
    );
  const choose = (run) => () => (dialog.close(), run());
  const dialog = openDialog(
    { id: "conflict", "aria-labelledby": "conflict-title", class: "roomy" },
    el("h2", { id: "conflict-title" }, "Somebody changed it meanwhile"),
    el("p", { class: "dim" }, "Nothing of yours has been saved. What differs is marked."),
    el("div", { class: "pair" }, side("Stored now", (name) => FIELDS[name].read(stored_)), side("Yours", (name) => mine[name])),
    el(
      "div",
      { class: "row wraps" },
      el("span", { class: "grow" }),
      el("button", { type: "button", click: choose(() => app.changed(stored_)) }, "Keep what is stored"),
      el("button", { type: "button", class: "main", click: choose(() => editMemory(app, stored_, mine)) }, "Go on with mine"),
    ),
  );
}

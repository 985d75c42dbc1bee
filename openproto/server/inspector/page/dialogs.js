// Dialogs: the key, and the shortcuts.
import { el } from "./dom.js";

/** Show a dialog; it is removed once it is closed, and the focus returns to where it was. */
export function openDialog(attributes, ...children) {
  const dialog = el("dialog", { close: () => dialog.remove(), ...attributes }, ...children);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Ask for the key, which is kept in this tab's memory and nowhere else. */
export function showLogin(app, reason = "") {
  if (document.getElementById("login")) return;
  const key = el("input", { type: "password", id: "api-key", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "login-fault" });
  const fault = el("p", { id: "login-fault", class: "fault", role: "alert", hidden: !reason }, reason);
  const refuse = (text) => {
    fault.textContent = text;
    fault.hidden = false;
    key.select();
  };
  const submit = async (event) => {
    event.preventDefault();
    const given = key.value.trim();
    if (!/^[\x21-\x7e]+$/.test(given)) return refuse("A key is letters, digits, and signs without blanks. Paste it again.");
    app.api.use(given);
    try {
      await app.enter();
      dialog.close();
    } catch (error) {
      app.api.use("");
      refuse(error.message);
    }
  };
  const dialog = openDialog(
    { id: "login", "aria-labelledby": "login-title", cancel: (event) => event.preventDefault() },
    el(
      "form",
      { submit },
      el("h2", { id: "login-title" }, "This server wants a key"),
      el("p", { class: "dim" }, "It stays in the memory of this tab and is gone when you close or reload it."),
      fault,
      el("label", { class: "field" }, el("span", {}, "API key"), key),
      el("div", { class: "row" }, el("span", { class: "grow" }), el("button", { class: "main" }, "Open")),
    ),
  );
}

const KEYS = [
  ["/", "Search"],
  ["u", "Find a user"],
  ["t", "Go to the table"],
  ["↑ ↓ or j k", "Move in the table; Home, End, Page Up and Down too"],
  ["Enter", "Show the memory"],
  ["n", "Add a memory"],
  ["e", "Edit the shown one"],
  ["d", "Delete the shown one"],
  ["z", "Take the last deletion back"],
  ["1 … 5", "Memories, context, duplicates, activity, figures"],
  ["Esc", "Close what is open"],
  ["?", "This list"],
];

/** List the shortcuts, and let them be switched off: they disturb those who speak to their computer. */
export function showHelp(app) {
  const on = el("input", { type: "checkbox", id: "shortcuts", change: () => (app.shortcuts = on.checked) });
  on.checked = app.shortcuts;
  const dialog = openDialog(
    { id: "keys", "aria-labelledby": "keys-title" },
    el("h2", { id: "keys-title" }, "Keyboard"),
    el("dl", { class: "keys" }, KEYS.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)))),
    el("label", { class: "row" }, on, "Keys of one character are shortcuts"),
    el("p", { class: "small" }, el("a", { href: "docs" }, "The routes of this server")),
    el("div", { class: "row" }, el("span", { class: "grow" }), el("button", { type: "button", click: () => dialog.close() }, "Close")),
  );
}

// What is asked before something is done, and what is said after: one dialog, a stack of notes.

import { go, redraw, to } from "./app.js";
import { h, render } from "./dom.js";
import { routineName } from "./format.js";
import { button, commandLine, problemView } from "./parts.js";
import { ended, store } from "./store.js";

const NOTES = 4;
const NOTE_MS = 7000;
const node = document.getElementById("dialog");
let view = null;
let notes = [];
let number = 0;

node.addEventListener("close", () => render(node, (view = null)));
node.addEventListener("click", (event) => event.target === node && node.close());

export const isOpen = () => view !== null;
export const close = () => node.close();

/** Show what `shown()` returns, drawn with the page, until it is closed. */
export function show(shown) {
  view = shown;
  drawDialogs();
  node.showModal();
  node.querySelector("[autofocus]")?.focus();
}

export function drawDialogs() {
  if (view) render(node, view());
  render(document.getElementById("notes"), notes.map(noteView));
}

/** Ask, then do: {title, text, line(), label, danger, body(), run(), done(result)}. What `run` raises is shown where it
 *  was asked. */
export function ask(act) {
  let busy = false;
  let problem = null;
  const submit = async (event) => {
    event.preventDefault();
    busy = true;
    drawDialogs();
    try {
      const result = await act.run();
      close();
      act.done(result);
    } catch (refusal) {
      problem = refusal;
    }
    busy = false;
    drawDialogs();
  };
  show(() =>
    h("form", { onsubmit: submit, label: act.title },
      h("h2", act.title), act.text ? h("p", act.text) : null, act.body?.(),
      h("div.same", commandLine(act.line())),
      problem ? problemView(problem) : null,
      h("div.answers", button("Cancel", { onclick: close }), h("button", { type: "submit", class: act.danger ? "danger" : "primary", disabled: busy, autofocus: !act.body }, act.label))));
}

/** Say what was done, or what went wrong (`problem`), with its command line. */
export function say(text, { line, problem, href } = {}) {
  const note = { number: ++number, text, line, problem, href };
  notes = [...notes, note].slice(-NOTES);
  if (!problem) setTimeout(() => drop(note), NOTE_MS);
  redraw();
}

function drop(note) {
  notes = notes.filter((one) => one !== note);
  redraw();
}

const noteView = (note) =>
  h("div.note", { key: note.number },
    h("div.note-head", note.href ? h("a", { href: note.href }, note.text) : h("span", note.text), button("×", { class: "quiet", label: "Dismiss", onclick: () => drop(note) })),
    note.problem ? problemView(note.problem) : null, note.line ? commandLine(note.line) : null);

/** Do without asking; say what came of it. */
export async function act(text, line, run, open = false) {
  try {
    const task = await run();
    started(text, line, task);
    if (open) go(to("tasks", task.id));
  } catch (problem) {
    say("", { problem, line });
  }
}

/** Say that a task was started; and that it failed, when it does. */
export async function started(text, line, task) {
  store.offer(task);
  say(text, { line, href: to("tasks", task.id) });
  while (store.task.has(task.id) && !ended(store.task.get(task.id))) await new Promise((done) => setTimeout(done, 200));
  const { state, failure, routine } = store.task.get(task.id) ?? {};
  if (state === "failed") say(`${routineName(routine)} failed`, { problem: failure ?? {}, href: to("tasks", task.id) });
}

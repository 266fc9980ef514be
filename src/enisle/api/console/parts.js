// The vocabulary of the pages: tables, states, tabs, facts, errors, command lines.

import { app, search, to } from "./app.js";
import { bar } from "./blocks.js";
import { h } from "./dom.js";
import { percent, routineName, short } from "./format.js";
import { store } from "./store.js";

export { bar };

/** Text in which `words like this` are set as code. */
export const prose = (text) => String(text ?? "").split(/`([^`]+)`/).map((part, i) => (i % 2 ? h("code", part) : part));
export const link = (href, ...inside) => h("a", { href }, ...inside);
export const button = (text, props) => h("button", { type: "button", ...props }, text);
export const code = (text) => h("code", String(text));

const TONES = { good: "running live", busy: "creating queued", warn: "blocked interrupted", bad: "lost failed" };
const toneOf = (word) => Object.keys(TONES).find((tone) => TONES[tone].split(" ").includes(word)) ?? "calm";

/** A state as a word with a mark: hue is not the only difference. */
export const state = (word, more) => h("span.state", { class: toneOf(word), "data-state": word }, h("i"), h("span", word, more));

export async function copy(text) {
  // Outside of a secure context there is no clipboard but that of a selection.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** A command line that a click copies. */
export const commandLine = (text) =>
  h("span.line", h("code", text), button("copy", { class: "quiet copy", label: `Copy: ${text}`, onclick: async ({ currentTarget }) => {
    await copy(text);
    currentTarget.textContent = "copied";
    setTimeout(() => (currentTarget.textContent = "copy"), 1200);
  } }));

/** What failed, why, and what to do. */
export const reasons = ({ message, why, hint }) => [h("strong", prose(message)), why ? h("p", prose(why)) : null, hint ? h("p", h("b", "hint "), prose(hint)) : null];

/** A refusal, with the task that holds what was asked for. */
export const problemView = (problem) => h("div.problem", { role: "alert" }, reasons(problem), problem.holder ? h("p", "held by ", taskLink(problem.holder), " ", doing(problem.holder)) : null);

export function taskLink(id) {
  const task = store.task.get(id);
  return h("a.task-link", { href: to("tasks", id) }, task ? routineName(task.routine) : "task", " ", h("code", short(id)));
}

/** How far a task is: bar, percentage, phase. */
export function doing(id) {
  const progress = store.progressOf(id);
  return progress ? h("span.doing", bar(progress.fraction, progress.phase), h("span.number", percent(progress.fraction)), h("span", progress.phase)) : null;
}

/** What to do where there is nothing: a sentence and the line to type. */
export const empty = (title, text, line) => h("div.empty", h("h2", title), h("p", text), line ? commandLine(line) : null);

export const none = (text) => h("p.none", text);

/** What is shown before there is anything, or instead of it. */
export const absent = (...words) => (store.loaded ? empty(...words) : none("Loading…"));

const nothing = (value) => value === null || value === undefined || value === "" || value === false || (Array.isArray(value) && !value.length);

/** Pairs of a name and a value; values that say nothing are left out. */
export const facts = (pairs) => h("dl.facts", pairs.filter(([, value]) => !nothing(value)).map(([name, value]) => h("div", { key: name }, h("dt", name.replaceAll("_", " ")), h("dd", value))));

/** The head of a list: its name, a filter, what else. */
export const head = (title, ...more) =>
  h("div.head", { key: "head" }, h("h1", title), h("input.filter", {
    id: "filter", type: "search", value: app.search.q ?? "", placeholder: `Filter ${title.toLowerCase()}`, label: `Filter ${title.toLowerCase()}`, autocomplete: "off", oninput: ({ target }) => search({ q: target.value }),
  }), ...more);

/** The head of a detail: the way back, its name and state, what can be done. */
export const detailHead = (page, above, name, word, resource, actions) =>
  h("div.head", { key: "head" }, h("p.crumbs", link(to(page), above), " / "), h("h1", name), word ? state(word) : null,
    actions ? h("div.actions", { resource, mode: "shared" }, h("span.group", actions)) : null);

export const tabs = (current, ...items) => h("nav.tabs", { label: "Parts" }, items.map(([name, href]) => h("a", { key: name, href, "aria-current": name === current ? "page" : null }, name)));

export const chips = (label, words, pressed, press, ...more) => h("div.chips", { key: "chips", role: "group", label }, words.map((word) => button(word, { key: word, "aria-pressed": String(pressed(word)), onclick: () => press(word) })), ...more);

/** A table. Columns: [name, cell(item), {width, class}]; rows: {key, opens, resource, cli} of an item. A click or Enter
 *  opens a row; what a task holds leads to that task instead (blocks.js). */
export function table(label, columns, items, row) {
  const widths = columns.map(([, , more]) => more?.width ?? "max-content").join(" ");
  const top = h("div.row.top", { role: "row", key: " top" }, columns.map(([name, , more]) => h("span", { role: "columnheader", class: more?.class }, name)));
  const rows = items.map((item) => {
    const props = row(item);
    const open = (event) => event.target.closest("a, button") || String(getSelection()) || (location.hash = props.opens);
    return h("div.row", { role: "row", mode: "shared", tabindex: props.opens ? 0 : null, onclick: props.opens ? open : null, ...props }, columns.map(([, cell, more], i) => h("span", { role: "cell", key: i, class: more?.class }, cell(item))));
  });
  return h("div.table", { role: "table", label, vars: { "--columns": widths } }, top, rows);
}

/** A list page: what of a kind there is. */
export const listView = (title, line, found, { columns, row, filter, more, lacking }) => ({
  title, line,
  view() {
    const all = found();
    const shown = all.filter((one) => filter(one, app.search.q));
    return [head(title, more?.()), all.length ? table(title, columns, shown, row) : absent(...lacking), all.length && !shown.length ? none("Nothing matches.") : null];
  },
});

export const field = (label, input, note) => h("label.field", h("span", label), input, note ? h("small", note) : null);

// The list of tasks: those the stream tells of, and older ones fetched page by page.

import { app, redraw, search, to } from "./app.js";
import { h } from "./dom.js";
import { ago, among, duration, line, moment, routineName, short } from "./format.js";
import { absent, button, chips, code, doing, head, link, none, problemView, state, table, taskLink } from "./parts.js";
import { call, now } from "./rest.js";
import { ended, store } from "./store.js";

const SHOWN = 200;
const STATES = { all: null, active: "queued blocked running interrupted", blocked: "blocked", running: "running interrupted", done: "done", failed: "failed", cancelled: "cancelled" };
const PAGES = { island: "islands", host: "hosts", vm: "vms" };

export const resourceLink = ({ kind, id }) => (PAGES[kind] ? link(to(PAGES[kind], id), id) : code(`${kind}/${id}`));
export const took = (task) => (task.started ? duration((task.finished ?? now()) - task.started) : "–");

// What a task is doing: how far it is, whom it waits for, or what came of it.
function present(task) {
  if (task.state === "failed") return h("span.bad-text", { title: task.failure?.why }, task.failure?.message);
  if (ended(task)) return Number.isFinite(task.result?.exit_code) ? `exit ${task.result.exit_code}` : task.cancel;
  if (task.blocked) return h("span", "waits for ", code(task.blocked.resource), task.blocked.by ? [", held by ", taskLink(task.blocked.by)] : null);
  return task.cancel ? "being cancelled" : doing(task.id);
}

const COLUMNS = [
  ["State", (one) => state(one.state)],
  ["Task", (one) => [link(to("tasks", one.id), routineName(one.routine)), h("small.mono", ` ${short(one.id)}`)], { class: "name" }],
  ["On", (one) => (one.resources?.length ? one.resources.map((resource, i) => [i ? ", " : "", resourceLink(resource)]) : "–"), { width: "minmax(4rem, max-content)" }],
  ["Now", present, { class: "now", width: "minmax(0, 1fr)" }],
  ["Host", (one) => one.host || "–", { class: "minor" }],
  ["Took", took, { class: "minor number" }],
  ["Submitted", (one) => h("span", { title: moment(one.submitted) }, ago(one.submitted)), { class: "minor" }],
];

const named = (one) => (one.resources ?? []).map(({ kind, id }) => `${kind}/${id}`);

function matches(one, { state: word = "all", resource, routine, q }) {
  if (STATES[word] && !STATES[word].split(" ").includes(one.state)) return false;
  if ((resource && !named(one).includes(resource)) || (routine && routineName(one.routine) !== routine)) return false;
  return among(q, one.id, one.routine, one.host, one.actor, ...named(one));
}

export function tasks() {
  const older = { items: new Map(), next: null, asked: "", busy: false, problem: null };
  return {
    title: "Tasks",
    get line() {
      const { state: word, resource, routine } = app.search;
      return line("task", "ls", STATES[word] === word && ["--state", word], resource && ["--resource", resource], routine && ["--routine", routine]);
    },
    view() {
      const { resource, routine, state: word = "all" } = app.search;
      const all = [...new Map([...older.items, ...store.task]).values()];
      const shown = all.filter((one) => matches(one, app.search)).sort((a, b) => b.submitted - a.submitted);
      const names = [...new Set([...all.map((one) => routineName(one.routine)), ...(routine ? [routine] : [])])].sort();
      return [
        head("Tasks", h("select", { label: "Routine", onchange: ({ target }) => search({ routine: target.value }) }, h("option", { value: "" }, "all routines"), names.map((value) => h("option", { key: value, value, selected: value === routine }, value)))),
        chips("States", Object.keys(STATES), (one) => one === word, (one) => search({ state: one === "all" ? "" : one }), resource ? button(`${resource} ×`, { key: "drop", class: "filtered", onclick: () => search({ resource: "" }) }) : null),
        all.length ? table("Tasks", COLUMNS, shown.slice(0, SHOWN), ({ id }) => ({ key: id, opens: to("tasks", id), cli: line("task", "show", id) })) : absent("No tasks yet", "Everything the platform does is a task. Make an island and the first one appears:", "enisle island create web"),
        all.length && !shown.length ? none("No task matches.") : null,
        shown.length > SHOWN ? none(`${shown.length - SHOWN} more match; narrow the filter.`) : null,
        h("p.none", { key: "more" }, older.problem ? problemView(older.problem) : null, button(older.busy ? "Looking…" : "Older tasks", { class: "quiet", disabled: older.busy || older.next === "", onclick: () => fetchOlder(older) })),
      ];
    },
  };
}

async function fetchOlder(older) {
  const { state: word, resource, routine } = app.search;
  const exact = STATES[word] === word ? word : "";
  const asked = JSON.stringify([exact, resource, routine]);
  if (asked !== older.asked) Object.assign(older, { asked, next: null });
  older.busy = true;
  redraw();
  try {
    const told = await call("GET", "/v1/tasks", { search: { state: exact, resource, routine, limit: 100, cursor: older.next } });
    for (const one of told.items) older.items.set(one.id, one);
    Object.assign(older, { next: told.next ?? "", problem: null });
  } catch (problem) {
    older.problem = problem;
  }
  older.busy = false;
  redraw();
}

// The list of islands, and what can be done with one.

import { go, to } from "./app.js";
import { act, ask, drawDialogs, started } from "./dialogs.js";
import { h } from "./dom.js";
import { among, bytes, duration, line, plural } from "./format.js";
import { createIsland } from "./island_create.js";
import { bar, button, field, link, listView, state } from "./parts.js";
import { at, call, now } from "./rest.js";
import { store } from "./store.js";

const rests = (one) => ["stopped", "exited"].includes(one.state);

export const command = (island) => (island.program ?? []).join(" ");

/** How much of its memory an island uses. */
export const memory = ({ memory_used: used, memory_limit: limit }) => (limit ? h("span.meter", bar((used ?? 0) / limit, "memory"), h("span", bytes(used), h("small", ` / ${bytes(limit)}`))) : "–");

const COLUMNS = [
  ["Name", (one) => link(to("islands", one.name), one.name), { class: "name", width: "minmax(8rem, 1fr)" }],
  ["State", (one) => state(one.state, rests(one) && Number.isFinite(one.exit_code) ? ` ${one.exit_code}` : "")],
  ["Memory", memory],
  ["Host", (one) => (one.host ? link(to("hosts", one.host), one.host) : "–"), { class: "minor" }],
  ["Program", (one) => h("span", { title: command(one) }, command(one) || "–"), { class: "mono minor", width: "minmax(0, 2fr)" }],
  ["Age", (one) => duration(one.created ? now() - one.created : one.age, false), { class: "minor" }],
  ["", (one) => islandActions(one, true), { class: "acts" }],
];

/** The buttons of an island: in its row (`brief`), and on its own page. */
export function islandActions(one, brief = false) {
  const { name } = one;
  const resource = `island.${name}`;
  return [
    rests(one) ? button("Start", { resource, cli: line("island", "start", name), onclick: () => act(`Starting ${name}`, line("island", "start", name), () => call("POST", at`/v1/islands/${name}/start`, { body: { if_blocked: "fail" } })) }) : null,
    one.state === "running" && !brief ? button("Run…", { resource, mode: "shared", cli: line("island", "exec", name, "--", "…"), onclick: () => go(to("islands", name, "run")) }) : null,
    one.state === "running" ? button("Stop", { resource, mode: "shared", cli: line("island", "stop", name), onclick: () => stop(name) }) : null,
    button("Remove", { resource, mode: "shared", class: "danger-text", cli: line("island", "rm", name), onclick: () => remove(one) }),
  ];
}

function sharing(name) {
  const holder = store.holder(`island.${name}`);
  return holder ? ` ${plural(holder.count, "command")} in it will be cancelled.` : "";
}

function stop(name) {
  const words = line("island", "stop", name);
  ask({
    title: `Stop ${name}?`, text: `Its programs are ended; its files stay.${sharing(name)}`, label: "Stop", danger: true, line: () => words,
    run: () => call("POST", at`/v1/islands/${name}/stop`),
    done: (task) => started(`Stopping ${name}`, words, task),
  });
}

function remove(one) {
  const { name } = one;
  let force = false;
  const words = () => line("island", "rm", force && "--force", name);
  const box = () => h("input", { type: "checkbox", required: true, onchange: ({ target }) => drawDialogs((force = target.checked)) });
  ask({
    title: `Remove ${name}?`, text: `The island and its files are deleted. This cannot be undone.${sharing(name)}`, label: "Remove", danger: true, line: words,
    body: rests(one) ? null : () => field("Also though it runs", box()),
    run: () => call("DELETE", at`/v1/islands/${name}`, { search: { force: force && 1 } }),
    done: (task) => started(`Removing ${name}`, words(), task),
  });
}

export const islands = () =>
  listView("Islands", line("island", "ls"), () => [...store.island.values()].sort((a, b) => a.name.localeCompare(b.name)), {
    columns: COLUMNS,
    row: ({ name }) => ({ key: name, opens: to("islands", name), resource: `island.${name}`, cli: line("island", "show", name) }),
    filter: (one, text) => among(text, one.name, one.state, one.host, command(one)),
    more: () => button("Create island", { class: "primary", cli: line("island", "create", "NAME"), onclick: createIsland }),
    lacking: ["No islands yet", "An island runs a program apart from everything else. Press c to make one, or type:", "enisle island create --memory 512M web"],
  });

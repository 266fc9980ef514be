// Full machines: the list, one of them, and a look into its kernel.

import { to } from "./app.js";
import { act, ask, started } from "./dialogs.js";
import { h } from "./dom.js";
import { among, bytes, json, line } from "./format.js";
import { absent, button, code, detailHead, facts, link, listView, state } from "./parts.js";
import { at, call } from "./rest.js";
import { store } from "./store.js";

const VERBS = { running: ["pause", "stop"], paused: ["resume", "stop"] };
const DOING = { pause: "Pausing", resume: "Resuming", stop: "Stopping", rm: "Removing" };
const WARNINGS = { stop: "As by pulling the plug.", rm: "The machine and its memory are gone. This cannot be undone." };
const VIEWS = ["facts", "ps", "lsmod", "syscalls", "check"];
const size = (memory) => (Number.isFinite(memory) ? bytes(memory) : memory);
const capital = (word) => word[0].toUpperCase() + word.slice(1);

const COLUMNS = [
  ["Name", (one) => link(to("vms", one.name), one.name), { class: "name", width: "minmax(8rem, 1fr)" }],
  ["State", (one) => state(one.state)],
  ["Memory", (one) => size(one.memory), { class: "number" }],
  ["Host", (one) => (one.host ? link(to("hosts", one.host), one.host) : "–"), { class: "minor" }],
  ["Accelerator", (one) => one.accelerator ?? "–", { class: "minor" }],
  ["", (one) => actions(one), { class: "acts" }],
];

const actions = ({ name, state: word }) => [...(VERBS[word] ?? []), "rm"].map((verb) => button(verb === "rm" ? "Remove" : capital(verb), { key: verb, resource: `vm.${name}`, class: verb === "rm" ? "danger-text" : null, cli: line("vm", verb, name), onclick: () => change(name, verb) }));

function change(name, verb) {
  const words = line("vm", verb, name);
  const text = `${DOING[verb]} ${name}`;
  const run = () => (verb === "rm" ? call("DELETE", at`/v1/vms/${name}`) : call("POST", at`/v1/vms/${name}/${verb}`));
  if (!WARNINGS[verb]) return act(text, words, run);
  ask({ title: `${verb === "rm" ? "Remove" : "Stop"} ${name}?`, text: WARNINGS[verb], label: verb === "rm" ? "Remove" : "Stop", danger: true, line: () => words, run, done: (task) => started(text, words, task) });
}

export const machines = () =>
  listView("Machines", line("vm", "ls"), () => [...store.vm.values()].sort((a, b) => a.name.localeCompare(b.name)), {
    columns: COLUMNS,
    row: ({ name }) => ({ key: name, opens: to("vms", name), resource: `vm.${name}`, cli: line("vm", "show", name) }),
    filter: (one, text) => among(text, one.name, one.state, one.host),
    lacking: ["No full machines", "Where a program needs a kernel of its own:", "enisle vm run --kernel vmlinuz --initrd initrd.gz --name web"],
  });

export const machine = (name) => ({
  title: name,
  line: line("vm", "show", name),
  view() {
    const one = store.vm.get(name);
    if (!one) return absent("There is no such machine", "It was removed, or never made.", line("vm", "ls"));
    const { name: _, state: word, host, memory, ...rest } = one;
    const look = (view) => act(`Looking at ${view}`, line("introspect", view, name), () => call("POST", at`/v1/vms/${name}/introspect`, { body: { view } }), true);
    return [
      detailHead("vms", "Machines", name, word, `vm.${name}`, actions(one)),
      facts([["Host", host && link(to("hosts", host), host)], ["Memory", size(memory)], ...Object.entries(rest).map(([key, value]) => [key, value && (typeof value === "object" ? code(json(value)) : String(value))])]),
      h("h2", "Look into its kernel"),
      h("p.group", VIEWS.map((view) => button(view, { resource: `vm.${name}`, mode: "shared", cli: line("introspect", view, name), onclick: () => look(view) }))),
    ];
  },
});

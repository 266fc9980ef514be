// The form that makes an island; the command line that does the same is written while it is filled in.

import { go, to } from "./app.js";
import { ask, drawDialogs, started } from "./dialogs.js";
import { h } from "./dom.js";
import { line, program } from "./format.js";
import { field } from "./parts.js";
import { call } from "./rest.js";
import { store } from "./store.js";

export function createIsland() {
  const form = { name: "", memory: "512M", processors: "", program: "", env: "", host: "", network: "" };
  const keep = ({ target }) => drawDialogs((form[target.name] = target.value.trim()));
  const input = (name, more) => h("input", { name, value: name === "memory" ? "512M" : "", autocomplete: "off", spellcheck: "false", oninput: keep, ...more });
  const select = (name, options) => h("select", { name, onchange: keep }, options.map(([value, text]) => h("option", { value }, text)));
  ask({
    title: "Create an island", label: "Create",
    body: () =>
      h("div.fields",
        field("Name", input("name", { required: true, pattern: "[A-Za-z0-9_\\-]{1,64}", placeholder: "web", autofocus: true, title: "letters, digits, - and _, at most 64" })),
        h("div.pair", field("Memory", input("memory", { required: true, pattern: "[0-9.]+[KMGT]?", title: "as 512M or 2G" })), field("Processors", input("processors", { pattern: "[0-9]*", placeholder: "the host's" }))),
        field("Program", input("program", { class: "mono", placeholder: "python3 -m http.server" }), "Without one the island waits for commands."),
        field("Environment", h("textarea", { name: "env", rows: 2, spellcheck: "false", placeholder: "NAME=value, one a line", oninput: keep })),
        h("div.pair", field("Host", select("host", [["", "any"], ...[...store.host.keys()].sort().map((name) => [name, name])])), field("Network", select("network", [["", "none: its own loopback"], ["host", "the host's"]])))),
    line: () => createLine(form),
    run: () => call("POST", "/v1/islands", { body: request(form) }),
    done: (task) => {
      started(`Creating ${form.name}`, createLine(form), task);
      go(to("islands", form.name));
    },
  });
}

const variables = (text) => text.split("\n").map((one) => one.trim()).filter((one) => one.includes("="));

function request({ env, program: typed, processors, ...form }) {
  const pairs = variables(env).map((one) => [one.slice(0, one.indexOf("=")), one.slice(one.indexOf("=") + 1)]);
  return { ...form, processors: Number(processors), program: program(typed), env: Object.fromEntries(pairs) };
}

function createLine(form) {
  const options = ["memory", "processors", "network", "host"].filter((name) => form[name]).map((name) => [`--${name}`, form[name]]);
  const words = program(form.program);
  return line("island", "create", options, variables(form.env).map((one) => ["--env", one]), form.name || "NAME", words.length ? ["--", words] : "");
}

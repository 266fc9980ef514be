import {go, to} from "./app.js"
import {act, ask, bar, button, drawDialogs, field, HOST, listView, nameColumn, started, state, TENANT} from "./parts.js"
import {h} from "./dom.js"
import {among, bytes, duration, line, plural, program, quote} from "./format.js"
import {at, call, now} from "./rest.js"
import {store} from "./store.js"

const rests = one => ["stopped", "exited"].includes(one.state)

export const command = island => (island.program ?? []).map(quote).join(" ")

export const memory = ({memory_used: used, memory_limit: limit}) => (limit ? h("span.meter", bar((used ?? 0) / limit, "memory"), h("span", bytes(used), h("small", ` / ${bytes(limit)}`))) : "–")

const COLUMNS = [
	nameColumn("islands"),
	TENANT,
	["State", one => state(one.state, rests(one) && Number.isFinite(one.exit_code) ? ` ${one.exit_code}` : "")],
	["Memory", memory],
	HOST,
	["Program", one => h("span", {title: command(one)}, command(one) || "–"), {class: "mono minor", width: "minmax(0, 2fr)"}],
	["Age", one => duration(one.created ? now() - one.created : one.age, false), {class: "minor"}],
	["", one => islandActions(one, true), {class: "acts"}]
]

export function islandActions(one, brief = false) {
	const {name} = one
	const runs = one.state === "running"
	const start = line("island", "start", name)
	const acts = (text, cli, onclick, more) => button(text, {resource: `island.${name}`, mode: "shared", cli, onclick, ...more})
	return [
		rests(one) && acts("Start", start, () => act(`Starting ${name}`, start, () => call("POST", at`/v1/islands/${name}/start`, {body: {if_blocked: "fail"}})), {mode: "exclusive"}),
		runs && !brief && acts("Run…", line("island", "exec", name, "--", "…"), () => go(to("islands", name, "run"))),
		runs && acts("Stop", line("island", "stop", name), () => stop(name)),
		acts("Remove", line("island", "rm", name), () => remove(one), {class: "danger-text"})
	]
}

function sharing(name) {
	const holder = store.holder(`island.${name}`)
	return holder ? ` ${plural(holder.count, "command")} in it will be cancelled.` : ""
}

function stop(name) {
	const words = line("island", "stop", name)
	ask({
		title: `Stop ${name}?`, text: `Its programs are ended; its files stay.${sharing(name)}`, label: "Stop", danger: true, line: () => words,
		run: () => call("POST", at`/v1/islands/${name}/stop`), doing: `Stopping ${name}`
	})
}

function remove(one) {
	const {name} = one
	let force = false
	const words = () => line("island", "rm", force && "--force", name)
	const box = () => h("input", {type: "checkbox", required: true, onchange: ({target}) => drawDialogs((force = target.checked))})
	ask({
		title: `Remove ${name}?`, text: `The island and its files are deleted. This cannot be undone.${sharing(name)}`, label: "Remove", danger: true, line: words,
		body: rests(one) ? null : () => field("Also though it runs", box()),
		run: () => call("DELETE", at`/v1/islands/${name}`, {search: {force: force && 1}}),
		doing: `Removing ${name}`
	})
}

export const islands = () =>
	listView("Islands", "island", ["island", "ls"], {
		columns: COLUMNS,
		cli: name => line("island", "show", name),
		filter: (one, text) => among(text, one.name, one.state, one.host, command(one)),
		more: () => button("Create island", {class: "primary", cli: line("island", "create", "NAME"), onclick: createIsland}),
		lacking: ["No islands yet", "An island runs a program apart from everything else. Press c to make one, or type:", "enisle island create --memory 512M web"]
	})

export function createIsland() {
	const form = {name: "", memory: "512M", processors: "", program: "", env: "", host: "", network: ""}
	const keep = ({target}) => drawDialogs((form[target.name] = target.value.trim()))
	const input = (name, more) => h("input", {name, value: name === "memory" ? "512M" : "", autocomplete: "off", spellcheck: "false", oninput: keep, ...more})
	const select = (name, options) => h("select", {name, onchange: keep}, options.map(([value, text]) => h("option", {value}, text)))
	ask({
		title: "Create an island", label: "Create",
		body: () =>
			h("div.fields",
				field("Name", input("name", {required: true, pattern: "[A-Za-z0-9_\\-]{1,64}", placeholder: "web", autofocus: true, title: "letters, digits, - and _"})),
				h("div.pair", field("Memory", input("memory", {required: true, pattern: "[0-9.]+[KMGT]?", title: "as 512M or 2G"})), field("Processors", input("processors", {pattern: "[0-9]*", placeholder: "the host's"}))),
				field("Program", input("program", {class: "mono", placeholder: "python3 -m http.server"}), "Without one the island waits for commands."),
				field("Environment", h("textarea", {name: "env", rows: 2, spellcheck: "false", placeholder: "NAME=value, one a line", oninput: keep})),
				h("div.pair", field("Host", select("host", [["", "any"], ...[...store.host.keys()].sort().map(name => [name, name])])), field("Network", select("network", [["", "none: its own loopback"], ["host", "the host's"]])))),
		line: () => createLine(form),
		run: () => call("POST", "/v1/islands", {body: request(form)}),
		done: task => {
			started(`Creating ${form.name}`, createLine(form), task)
			go(to("islands", form.name))
		}
	})
}

const variables = text => text.split("\n").map(one => one.trim()).filter(one => one.includes("="))

function request({env, program: typed, processors, ...form}) {
	const pairs = variables(env).map(one => [one.slice(0, one.indexOf("=")), one.slice(one.indexOf("=") + 1)])
	return {...form, processors: Number(processors), program: program(typed), env: Object.fromEntries(pairs)}
}

function createLine(form) {
	const options = ["memory", "processors", "network", "host"].filter(name => form[name]).map(name => [`--${name}`, form[name]])
	const words = program(form.program)
	return line("island", "create", options, variables(form.env).map(one => ["--env", one]), form.name || "NAME", words.length ? ["--", words] : "")
}

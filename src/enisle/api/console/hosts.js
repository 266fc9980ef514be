import {to} from "./app.js"
import {h} from "./dom.js"
import {ago, among, bytes, json, line, routineName} from "./format.js"
import {absent, act, ask, button, code, detailHead, facts, HOST, link, listView, nameColumn, say, STATE, table, TENANT, typed} from "./parts.js"
import {at, call} from "./rest.js"
import {ended, store} from "./store.js"

const on = (kind, name) => [...store[kind].values()].filter(one => one.host === name && !(kind === "task" && ended(one)))
const number = {class: "number"}
const minor = {class: "number minor"}

const COLUMNS = [
	nameColumn("hosts"),
	STATE,
	["Processors", one => one.processors ?? "–", minor],
	["Memory", one => bytes(one.memory), minor],
	["Islands", one => String(on("island", one.name).length), number],
	["Machines", one => String(on("vm", one.name).length), minor],
	["Tasks", one => String(on("task", one.name).length), number],
	["Version", one => one.version ?? "–", {class: "minor"}],
	["Since", one => ago(one.since), {class: "minor"}]
]

export const hosts = () =>
	listView("Hosts", "host", ["host", "ls"], {
		columns: COLUMNS,
		cli: name => line("host", "show", name),
		filter: (one, text) => among(text, one.name, one.state, one.version),
		lacking: ["No host is here", "Without one, tasks wait. On the machine that shall join, type:", `enisle join --token TOKEN ${location.origin}`]
	})

export const host = name => ({
	title: name,
	line: line("host", "show", name),
	view() {
		const one = store.host.get(name)
		if (!one) return absent("There is no such host", "It never joined, or was removed.", line("host", "ls"))
		const live = one.state === "live" || one.state === "draining"
		const dead = button("Declare dead…", {class: "danger-text", resource: `host.${name}`, disabled: live, title: live && "it is live", cli: line("host", "declare-dead", "--reason", "…", name), onclick: () => declareDead(name)})
		return [
			detailHead("hosts", "Hosts", name, one.state, `host.${name}`, dead),
			facts([["Address", one.address], ["Processors", one.processors], ["Memory", bytes(one.memory)], ["Version", one.version], ["Since", one.since && ago(one.since)], ["Why", one.why]]),
			things("Islands", "islands", "island", name), things("Machines", "vms", "vm", name), things("Tasks", "tasks", "task", name)
		]
	}
})

function things(title, page, kind, name) {
	const rows = on(kind, name)
	const id = one => (kind === "task" ? one.id : one.name)
	const columns = [["Name", one => link(to(page, id(one)), one.name ?? routineName(one.routine)), {class: "name"}], STATE]
	return rows.length ? [h("h2", title), table(title, columns, rows, one => ({key: id(one), opens: to(page, id(one)), resource: `${kind}.${id(one)}`}))] : null
}

function declareDead(name) {
	let reason = ""
	const words = () => line("host", "declare-dead", "--reason", reason || "…", name)
	ask({
		title: `Declare ${name} dead?`, label: "Declare dead", danger: true, line: words,
		text: "Only when it cannot come back by itself: powered off, or cut from its storage. What it runs is given up, its tasks fail, what they hold becomes free.",
		body: () => typed("How do you know?", text => (reason = text), {required: true, placeholder: "powered off by hand"}, "Kept in the audit."),
		run: () => call("POST", at`/v1/hosts/${name}/declare-dead`, {body: {reason}}),
		done: () => say(`${name} is declared dead`, {line: words()})
	})
}

const VERBS = {running: ["pause", "stop"], paused: ["resume", "stop"]}
const DOING = {pause: "Pausing", resume: "Resuming", stop: "Stopping", remove: "Removing"}
const WARNINGS = {stop: "It is asked to power off, then ended.", remove: "The machine and its memory are gone."}
const capital = word => word[0].toUpperCase() + word.slice(1)

const MACHINE_COLUMNS = [
	nameColumn("vms"),
	TENANT,
	STATE,
	["Memory", one => bytes(one.memory), {class: "number"}],
	HOST,
	["", one => actions(one), {class: "acts"}]
]

// A machine of the platform is changed by tasks; `enisle vm` is about machines without it.
const submitLine = (name, verb) => line("task", "submit", `vm.${verb}@1`, `vm=${name}`, "--resource", `vm/${name}`)
const tasksLine = name => line("task", "ls", "--resource", `vm/${name}`)

const actions = ({name, state: word}) => [...(VERBS[word] ?? []), "remove"].map(verb => button(capital(verb), {key: verb, resource: `vm.${name}`, class: verb === "remove" && "danger-text", cli: submitLine(name, verb), onclick: () => change(name, verb)}))

function change(name, verb) {
	const words = submitLine(name, verb)
	const text = `${DOING[verb]} ${name}`
	const run = () => (verb === "remove" ? call("DELETE", at`/v1/vms/${name}`) : call("POST", at`/v1/vms/${name}/${verb}`))
	const label = capital(verb)
	if (!WARNINGS[verb]) return act(text, words, run)
	ask({title: `${label} ${name}?`, text: WARNINGS[verb], label, danger: true, line: () => words, run, doing: text})
}

export const machines = () =>
	listView("Machines", "vm", ["task", "ls", "--routine", "vm.run"], {
		columns: MACHINE_COLUMNS,
		cli: tasksLine,
		filter: (one, text) => among(text, one.name, one.state, one.host),
		lacking: ["No full machines", "Where a program needs a kernel of its own:", "enisle task submit vm.run@1 name=web 'configuration={\"kernel\":\"/boot/vmlinuz\"}' --resource vm/web"]
	})

export const machine = name => ({
	title: name,
	line: tasksLine(name),
	view() {
		const one = store.vm.get(name)
		if (!one) return absent("There is no such machine", "It was removed, or never made.", tasksLine(name))
		const {name: _, state: word, host, memory, ...rest} = one
		return [
			detailHead("vms", "Machines", name, word, `vm.${name}`, actions(one)),
			facts([["Host", host && link(to("hosts", host), host)], ["Memory", bytes(memory)], ...Object.entries(rest).map(([key, value]) => [key, value && (typeof value === "object" ? code(json(value)) : String(value))])])
		]
	}
})

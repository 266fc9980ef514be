import {app, go, redraw, search, to} from "./app.js"
import {bar} from "./blocks.js"
import {h, render} from "./dom.js"
import {line, percent, routineName, short} from "./format.js"
import {ended, store} from "./store.js"

export {bar}

export const prose = text => String(text ?? "").split(/`([^`]+)`/).map((part, i) => (i % 2 ? h("code", part) : part))
export const link = (href, ...inside) => h("a", {href}, ...inside)
export const button = (text, props) => h("button", {type: "button", ...props}, text)
export const code = text => h("code", String(text))
export const nameColumn = page => ["Name", one => link(to(page, one.name), one.name), {class: "name"}]
export const TENANT = ["Tenant", one => one.tenant, {class: "minor"}]
export const STATE = ["State", one => state(one.state)]
export const HOST = ["Host", one => (one.host ? link(to("hosts", one.host), one.host) : "–"), {class: "minor"}]

const TONES = {good: "running live", busy: "creating queued", warn: "blocked interrupted", bad: "lost failed"}
const toneOf = word => Object.keys(TONES).find(tone => TONES[tone].split(" ").includes(word)) ?? "calm"

export const state = (word, more) => h("span.state", {class: toneOf(word), "data-state": word}, h("i"), h("span", word, more))

export async function copy(text, node) {
	if (navigator.clipboard) await navigator.clipboard.writeText(text)
	else getSelection().selectAllChildren(node)
}

export const commandLine = text =>
	h("span.line", h("code", text), button("copy", {class: "quiet copy", label: `Copy: ${text}`, onclick: ({target}) => copy(text, target.previousSibling).then(() => (target.firstChild.data = "copied"))}))

export const reasons = ({message, why, hint}) => [h("strong", prose(message)), why && h("p", prose(why)), hint && h("p", h("b", "hint "), prose(hint))]

export const problemView = problem => problem && h("div.problem", {role: "alert"}, reasons(problem), problem.holder && h("p", "held by ", taskLink(problem.holder), " ", doing(problem.holder)))

export function taskLink(id) {
	const task = store.task.get(id)
	return h("a.task-link", {href: to("tasks", id)}, task ? routineName(task.routine) : "task", " ", h("code", short(id)))
}

export function doing(id) {
	const progress = store.progressOf(id)
	return progress && h("span.doing", bar(progress.fraction, progress.phase), h("span.number", percent(progress.fraction)), h("span", progress.phase))
}

export const empty = (title, text, line) => h("div.empty", h("h2", title), h("p", text), line && commandLine(line))

export const none = text => h("p.none", text)

export const absent = (...words) => (store.loaded ? empty(...words) : none("Loading…"))

const nothing = value => value === null || value === undefined || value === "" || value === false || (Array.isArray(value) && !value.length)

export const facts = pairs => h("dl.facts", pairs.filter(([, value]) => !nothing(value)).map(([name, value]) => h("div", {key: name}, h("dt", name.replaceAll("_", " ")), h("dd", value))))

export function head(title, ...more) {
	const placeholder = `Filter ${title.toLowerCase()}`
	const filter = h("input.filter", {id: "filter", type: "search", value: app.search.q ?? "", placeholder, label: placeholder, autocomplete: "off", oninput: ({target}) => search({q: target.value})})
	return h("div.head", h("h1", title), filter, ...more)
}

export const detailHead = (page, above, name, word, resource, actions) =>
	h("div.head", {key: "head"}, h("p.crumbs", link(to(page), above), " / "), h("h1", name), word && state(word),
		actions && h("div.actions", {resource, mode: "shared"}, h("span.group", actions)))

export const tabs = (current, ...items) => h("nav.tabs", {label: "Parts"}, items.map(([name, href]) => h("a", {key: name, href, "aria-current": name === current && "page"}, name)))

export const chips = (label, words, pressed, press, ...more) => h("div.chips", {key: "chips", role: "group", label}, words.map(word => button(word, {key: word, "aria-pressed": String(pressed(word)), onclick: () => press(word)})), ...more)

export function table(label, columns, items, row) {
	if (store.tenants.size < 2) columns = columns.filter(one => one !== TENANT)
	const widths = columns.map(([, , more]) => more?.width ?? (more?.class === "name" ? "minmax(8rem, 1fr)" : "max-content")).join(" ")
	const top = h("div.row.top", {role: "row", key: " top"}, columns.map(([name, , more]) => h("span", {role: "columnheader", class: more?.class}, name)))
	const rows = items.map(item => {
		const props = row(item)
		const open = event => event.target.closest("a, button") || String(getSelection()) || (location.hash = props.opens)
		return h("div.row", {role: "row", mode: "shared", tabindex: props.opens && 0, onclick: props.opens && open, ...props}, columns.map(([, cell, more], i) => h("span", {role: "cell", key: i, class: more?.class}, cell(item))))
	})
	return h("div.table", {role: "table", label, vars: {"--columns": widths}}, top, rows)
}

export const listView = (title, kind, words, {columns, cli, filter, more, lacking}) => ({
	title,
	get line() {
		return line(words)
	},
	view() {
		const all = [...store[kind].values()].sort((a, b) => a.name.localeCompare(b.name))
		const shown = all.filter(one => filter(one, app.search.q))
		const row = ({name}) => ({key: name, opens: to(`${kind}s`, name), resource: `${kind}.${name}`, cli: cli(name)})
		return [head(title, more?.()), shown.length ? table(title, columns, shown, row) : all.length ? none("Nothing matches.") : absent(...lacking)]
	}
})

export const field = (label, input, note) => h("label.field", h("span", label), input, note && h("small", note))

export const typed = (label, take, props, note) => field(label, h("input", {maxlength: 200, autocomplete: "off", autofocus: true, ...props, oninput: ({target}) => drawDialogs(take(target.value))}), note)

const NOTES = 4
const NOTE_MS = 7000
const node = document.getElementById("dialog")
let view = null
let notes = []
let number = 0

node.addEventListener("close", () => render(node, (view = null)))
node.addEventListener("click", event => event.target === node && node.close())

export const isOpen = () => view !== null
export const close = () => node.close()

export function show(shown) {
	view = shown
	drawDialogs()
	node.showModal()
	node.querySelector("[autofocus]")?.focus()
}

export function drawDialogs() {
	if (view) render(node, view())
	render(document.getElementById("notes"), notes.map(noteView))
}

export function ask(act) {
	let busy = false
	let problem = null
	const submit = async event => {
		event.preventDefault()
		busy = true
		drawDialogs()
		try {
			const result = await act.run()
			close()
			act.doing ? started(act.doing, act.line(), result) : act.done(result)
		} catch (refusal) {
			problem = refusal
		}
		busy = false
		drawDialogs()
	}
	show(() =>
		h("form", {onsubmit: submit, label: act.title},
			h("h2", act.title), act.text && h("p", act.text), act.body?.(),
			h("div.same", commandLine(act.line())),
			problemView(problem),
			h("div.answers", button("Cancel", {onclick: close}), h("button", {type: "submit", class: act.danger ? "danger" : "primary", disabled: busy, autofocus: !act.body}, act.label))))
}

export function say(text, {line, problem, href} = {}) {
	const note = {number: ++number, text, line, problem, href}
	notes = [...notes, note].slice(-NOTES)
	if (!problem) setTimeout(() => drop(note), NOTE_MS)
	redraw()
}

function drop(note) {
	notes = notes.filter(one => one !== note)
	redraw()
}

const noteView = note =>
	h("div.note", {key: note.number},
		h("div.note-head", note.href ? h("a", {href: note.href}, note.text) : h("span", note.text), button("×", {class: "quiet", label: "Dismiss", onclick: () => drop(note)})),
		problemView(note.problem), note.line && commandLine(note.line))

export async function act(text, line, run, open = false) {
	try {
		const task = await run()
		started(text, line, task)
		if (open) go(to("tasks", task.id))
	} catch (problem) {
		say("", {problem, line})
	}
}

export async function started(text, line, task) {
	store.offer(task)
	say(text, {line, href: to("tasks", task.id)})
	while (store.task.has(task.id) && !ended(store.task.get(task.id))) await new Promise(done => setTimeout(done, 200))
	const {state, failure, routine} = store.task.get(task.id) ?? {}
	if (state === "failed") say(`${routineName(routine)} failed`, {problem: failure ?? {}, href: to("tasks", task.id)})
}

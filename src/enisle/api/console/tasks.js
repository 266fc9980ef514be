import {app, redraw, search, to} from "./app.js"
import {absent, act, ask, bar, button, chips, code, commandLine, detailHead, doing, empty, facts, head, HOST, link, none, problemView, reasons, say, STATE, table, TENANT, tabs, taskLink, typed} from "./parts.js"
import {h} from "./dom.js"
import {ago, among, clockTime, duration, json, line, moment, percent, routineName, short} from "./format.js"
import {at, call, now} from "./rest.js"
import {ended, store} from "./store.js"
import {screen} from "./terminal.js"

const SHOWN = 200
const STATES = {all: null, active: "queued blocked running interrupted", blocked: "blocked", running: "running interrupted", done: "done", failed: "failed", cancelled: "cancelled"}
const PAGES = {island: "islands", host: "hosts", vm: "vms"}

export const resourceLink = ({kind, id}) => (PAGES[kind] ? link(to(PAGES[kind], id), id) : code(`${kind}/${id}`))
export const took = task => (task.started ? duration((task.finished ?? now()) - task.started) : "–")

// What a task is doing: how far it is, whom it waits for, or what came of it.
function present(task) {
	if (task.state === "failed") return h("span.bad-text", {title: task.failure?.why}, task.failure?.message)
	if (ended(task)) return Number.isFinite(task.result?.exit_code) ? `exit ${task.result.exit_code}` : task.cancel
	if (task.blocked) return h("span", "waits for ", code(task.blocked.resource), task.blocked.by && [", held by ", taskLink(task.blocked.by)])
	return task.cancel ? "being cancelled" : doing(task.id)
}

const COLUMNS = [
	STATE,
	["Task", one => [link(to("tasks", one.id), routineName(one.routine)), h("small.mono", ` ${short(one.id)}`)], {class: "name", width: "max-content"}],
	["On", one => (one.resources?.length ? one.resources.map((resource, i) => [i ? ", " : "", resourceLink(resource)]) : "–"), {width: "minmax(4rem, max-content)"}],
	["Now", present, {class: "now", width: "minmax(0, 1fr)"}],
	TENANT,
	HOST,
	["Took", took, {class: "minor number"}],
	["Submitted", one => h("span", {title: moment(one.submitted)}, ago(one.submitted)), {class: "minor"}]
]

const named = one => (one.resources ?? []).map(({kind, id}) => `${kind}/${id}`)

function matches(one, {state: word = "all", resource, routine, q}) {
	if (STATES[word] && !STATES[word].split(" ").includes(one.state)) return false
	if ((resource && !named(one).includes(resource)) || (routine && routineName(one.routine) !== routine)) return false
	return among(q, one.id, one.routine, one.host, one.actor, ...named(one))
}

export function tasks() {
	const older = {items: new Map(), next: null, line: "", busy: false, problem: null}
	return {
		title: "Tasks",
		get line() {
			const {state: word, resource, routine} = app.search
			return line("task", "ls", word && STATES[word] === word && ["--state", word], resource && ["--resource", resource], routine && ["--routine", routine])
		},
		view() {
			const {resource, routine, state: word = "all"} = app.search
			if (older.line !== this.line) Object.assign(older, {line: this.line, next: null})
			const all = [...new Map([...older.items, ...store.task]).values()]
			const shown = all.filter(one => matches(one, app.search)).sort((a, b) => b.submitted - a.submitted)
			const names = [...new Set([...all.map(one => routineName(one.routine)), ...(routine ? [routine] : [])])].sort()
			return [
				head("Tasks", h("select", {label: "Routine", onchange: ({target}) => search({routine: target.value})}, h("option", {value: ""}, "all routines"), names.map(value => h("option", {key: value, value, selected: value === routine}, value)))),
				chips("States", Object.keys(STATES), one => one === word, one => search({state: one === "all" ? "" : one}), resource && button(`${resource} ×`, {key: "drop", onclick: () => search({resource: ""})})),
				shown.length ? table("Tasks", COLUMNS, shown.slice(0, SHOWN), ({id}) => ({key: id, opens: to("tasks", id), cli: line("task", "show", id)})) : all.length ? none("Nothing matches.") : absent("No tasks yet", "Everything the platform does is a task. Make an island and the first one appears:", "enisle island create web"),
				shown.length > SHOWN ? none(`${shown.length - SHOWN} more match; narrow the filter.`) : null,
				h("p.none", {key: "more"}, problemView(older.problem), button(older.busy ? "Looking…" : "Older tasks", {class: "quiet", disabled: older.busy || older.next === "", onclick: () => fetchOlder(older)}))
			]
		}
	}
}

async function fetchOlder(older) {
	const {state: word, resource, routine} = app.search
	older.busy = true
	redraw()
	try {
		const told = await call("GET", "/v1/tasks", {search: {resource, routine, state: STATES[word] === word && word, limit: 100, cursor: older.next}})
		for (const one of told.items) older.items.set(one.id, one)
		Object.assign(older, {next: told.next ?? "", problem: null})
	} catch (problem) {
		older.problem = problem
	}
	older.busy = false
	redraw()
}

export function task(id, part = "overview") {
	let kept = null // of the history, when the stream does not tell of it
	let problem = null
	const output = part === "output" ? outputPart(id) : null
	if (!store.task.has(id)) call("GET", at`/v1/tasks/${id}`).then(told => redraw((kept = told)), refusal => redraw((problem = refusal)))
	return {
		title: `Task ${id}`,
		line: line("task", output ? "output" : "show", id),
		close: () => output?.close(),
		view() {
			const one = store.task.get(id) ?? kept
			if (!one) return problem ? [problemView(problem), empty("There is no such task", "History is kept for 30 days.", line("task", "ls"))] : none("Loading…")
			return [
				detailHead("tasks", "Tasks", routineName(one.routine), one.state, null, action(one)),
				tabs(part, ["overview", to("tasks", id)], ["output", to("tasks", id, "output")], ["request", to("tasks", id, "request")]),
				h("section", {key: part}, output ? output.view() : part === "request" ? request(one) : overview(one))
			]
		}
	}
}

const action = one =>
	ended(one)
		? button("Retry", {key: "retry", cli: line("task", "retry", one.id), onclick: () => act("Trying again", line("task", "retry", one.id), () => call("POST", at`/v1/tasks/${one.id}/retry`, {search: {tenant: one.tenant}}), true)})
		: button("Cancel", {key: "cancel", disabled: Boolean(one.cancel), cli: line("task", "cancel", one.id), onclick: () => cancel(one)})

function cancel({id, routine}) {
	let why = ""
	const words = () => line("task", "cancel", why && ["--why", why], id)
	ask({
		title: `Cancel ${routineName(routine)}?`, text: "What it did so far is taken back where its routine knows how. What it holds is free at its end.", label: "Cancel the task", danger: true, line: words,
		body: () => typed("Why", text => (why = text), {placeholder: "optional; kept in the history"}),
		run: () => call("POST", at`/v1/tasks/${id}/cancel`, {body: {why}}),
		done: () => say("Cancelling", {line: words()})
	})
}

function overview(one) {
	return [
		one.blocked && !ended(one) && waiting(one.blocked),
		["running", "interrupted"].includes(one.state) && running(one),
		one.failure && h("div.callout.bad", reasons(one.failure)),
		one.cancel ? none([ended(one) ? "Cancelled: " : "Being cancelled: ", h("q", one.cancel)]) : null,
		steps(one),
		facts([
			["Holds", one.resources?.map((resource, i) => [i ? ", " : "", resourceLink(resource), resource.mode === "shared" ? h("small", " shared") : ""])],
			["Host", one.host && [link(to("hosts", one.host), one.host), one.placement === "pinned" ? h("small", " pinned") : ""]],
			["Attempt", `${one.attempt} of ${one.attempts}`],
			["Deadline", one.deadline && `${moment(one.deadline)}${ended(one) ? "" : ` (in ${duration(one.deadline - now())})`}`],
			["Actor", one.actor],
			["Id", commandLine(one.id)]
		]),
		one.state === "done" && one.result !== null && [h("h2", "Result"), result(one.result)]
	]
}

const waiting = ({resource, by, position, since}) =>
	h("div.callout.warn", h("strong", "Waits for ", code(resource)), h("p", by && ["held by ", taskLink(by), ", "], position > 0 ? `number ${position} in the row, ` : "", `since ${ago(since)}`), by && doing(by))

function running(one) {
	const progress = store.progressOf(one.id)
	const interrupted = one.state === "interrupted"
	return h("div.callout", {class: interrupted ? "warn" : ""},
		h("p.big-progress", h("strong", interrupted ? `interrupted: it goes on when ${one.host} is back` : progress?.phase || "working"), h("span.number", percent(progress?.fraction)), h("span", Number.isFinite(progress?.left_s) ? `about ${duration(progress.left_s)} left` : "")),
		bar(progress?.fraction, routineName(one.routine)))
}

function steps(one) {
	const again = attempt => (attempt > 1 ? `attempt ${attempt}` : "")
	const rows = [
		["submitted", one.submitted * 1000],
		one.started && ["started", one.started * 1000, again(one.attempt)],
		...(store.phases.get(one.id) ?? []).map(({phase, attempt, at: when}) => [phase, when, again(attempt)]),
		one.finished && [one.state, one.finished * 1000, one.started ? `took ${took(one)}` : "never started"]
	].filter(Boolean)
	return h("ol.steps", {label: "Phases"}, rows.map(([word, when, more], i) => h("li", {class: i === rows.length - 1 && !ended(one) ? "now" : null}, h("time", clockTime(when)), h("span", word), h("small", more))))
}

function result(value) {
	if (typeof value !== "object" || !("stdout" in value)) return h("pre", typeof value === "string" ? value : json(value))
	const {stdout, stderr, ...rest} = value
	return [facts(Object.entries(rest).map(([key, one]) => [key, String(one)])), stdout && h("pre", stdout), stderr && h("pre.bad-text", stderr)]
}

const request = ({routine, arguments: given, resources, placement, attempts, deadline, tenant}) => h("pre", json({routine, arguments: given, resources, placement, attempts, deadline, tenant}))

function outputPart(id) {
	let problem = null
	let told = null
	const typed = () => {
		const {state, arguments: given} = store.task.get(id) ?? {}
		return state === "running" && given?.input && id
	}
	const shown = screen(at`/v1/tasks/${id}/output`, {typed, changed: answer => redraw((told = answer)), failed: refusal => redraw((problem = refusal))})
	return {
		close: shown.close,
		view: () => [problemView(problem), told?.ended && shown.terminal.empty && none("It said nothing."), h("div", {key: "screen", opaque: true, mount: shown.mount})]
	}
}

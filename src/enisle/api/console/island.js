import {redraw, to} from "./app.js"
import {h} from "./dom.js"
import {ago, json, line, moment, routineName} from "./format.js"
import {filesPart} from "./island_files.js"
import {runPart} from "./island_run.js"
import {command, islandActions, memory} from "./islands.js"
import {absent, code, detailHead, doing, empty, facts, link, none, problemView, STATE, table, tabs, taskLink} from "./parts.js"
import {at, call} from "./rest.js"
import {store} from "./store.js"
import {screen} from "./terminal.js"

const REFRESH_MS = 2000
const PROCESS = [["PID", one => one.pid], ["Parent", one => one.ppid], ["State", one => one.state], ["Threads", one => one.threads], ["Name", one => code(one.name), {width: "minmax(0, 1fr)"}]]

export function island(name, part) {
	const key = part in PARTS ? part : "overview"
	const inside = PARTS[key](name)
	return {
		title: name,
		get line() {
			return inside.line
		},
		close: () => inside.close?.(),
		view() {
			const one = store.island.get(name)
			return [
				detailHead("islands", "Islands", name, one?.state, `island.${name}`, one && islandActions(one)),
				tabs(key, ...Object.keys(PARTS).map(each => [each, each === "overview" ? to("islands", name) : to("islands", name, each)])),
				one ? h("section", {key}, inside.view(one)) : lacking(name)
			]
		}
	}
}

function lacking(name) {
	const holder = store.holder(`island.${name}`)
	if (holder) return none(["Not there yet: ", taskLink(holder.id), " ", doing(holder.id)])
	return absent("There is no such island", "It was removed, or never made.", line("island", "create", name))
}

const overviewPart = name => ({
	line: line("island", "show", name),
	view: one => [
		facts([
			["Program", command(one) ? code(command(one)) : "none: it waits for commands"],
			["Exit code", Number.isFinite(one.exit_code) && String(one.exit_code)],
			["Memory", memory(one)],
			["Processes", Number.isFinite(one.processes) && String(one.processes)],
			["Host", one.host && link(to("hosts", one.host), one.host)],
			["Processors", one.backend],
			["Created", one.created && h("span", {title: moment(one.created)}, ago(one.created))],
			["Notes", one.notes?.map(note => h("div", String(note)))]
		]),
		h("details", h("summary", "Configuration"), h("pre", json(one.configuration))),
		recent(name)
	]
})

function recent(name) {
	const mine = [...store.task.values()].filter(one => one.resources?.some(({kind, id}) => kind === "island" && id === name))
	const latest = mine.sort((a, b) => b.submitted - a.submitted).slice(0, 6)
	const columns = [["Task", one => link(to("tasks", one.id), routineName(one.routine)), {class: "name"}], STATE, ["When", one => ago(one.submitted)]]
	const all = `#/tasks?resource=${encodeURIComponent(`island/${name}`)}`
	return latest.length ? [h("h2", "Tasks ", h("small", link(all, "all"))), table("Tasks", columns, latest, ({id}) => ({key: id, opens: to("tasks", id), cli: line("task", "show", id)}))] : null
}

function logPart(name) {
	let problem = null
	let heard = false
	const shown = screen(at`/v1/islands/${name}/logs`, {tail: 2000, changed: () => redraw((heard = true)), failed: refusal => redraw((problem = refusal))})
	return {
		line: line("island", "logs", "--follow", name),
		close: shown.close,
		view: one => [
			problemView(problem),
			heard && shown.terminal.empty && !command(one) ? empty("This island has no program", "The log is what its own program says; commands keep their output in their tasks.", line("island", "exec", name, "--", "ls")) : h("div", {key: "log", opaque: true, mount: shown.mount})
		]
	}
}

function processesPart(name) {
	let found = null
	let problem = null
	const look = async () => {
		if (document.hidden) return
		try {
			found = (await call("GET", at`/v1/islands/${name}/processes`)).items
			problem = null
		} catch (refusal) {
			problem = refusal
		}
		redraw()
	}
	look()
	const timer = setInterval(look, REFRESH_MS)
	return {
		line: line("island", "show", name),
		close: () => clearInterval(timer),
		view: () => [problemView(problem), found?.length ? table("Processes", PROCESS, found, one => ({key: one.pid})) : problem ? null : none(found ? "Nothing runs in it." : "Looking…")]
	}
}


const PARTS = {overview: overviewPart, run: runPart, log: logPart, files: filesPart, processes: processesPart}

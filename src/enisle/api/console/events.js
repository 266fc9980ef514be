import {app, redraw, search, to} from "./app.js"
import {h} from "./dom.js"
import {among, clockTime, line, percent, routineName, short} from "./format.js"
import {button, chips, code, empty, head, link, table, taskLink} from "./parts.js"
import {store} from "./store.js"

const SHOWN = 300
const KINDS = ["task", "lock", "island", "vm", "host", "progress"]
const PAGES = {task: "tasks", progress: "tasks", island: "islands", vm: "vms", host: "hosts"}

function words({kind, value}) {
	if (!value) return h("span.faint", kind === "lock" ? "free" : "gone")
	if (kind === "task") return [`${routineName(value.routine)} is ${value.state}`, value.failure ? `: ${value.failure.message}` : "", value.blocked?.by && value.state === "blocked" ? [", waits for ", taskLink(value.blocked.by)] : ""]
	if (kind === "lock") return value.holders?.length ? ["held by ", value.holders.slice(0, 3).map((id, i) => [i ? ", " : "", taskLink(id)]), value.mode === "shared" ? " (shared)" : ""] : "waited for"
	if (kind === "progress") return `${percent(value.fraction)} ${value.phase ?? ""}`
	return String(value.state ?? "changed")
}

const named = ({kind, id}) => (PAGES[kind] ? link(to(PAGES[kind], id), PAGES[kind] === "tasks" ? code(short(id)) : id) : code(id.replace(".", "/")))

const COLUMNS = [
	["Time", one => clockTime(one.at), {class: "number faint"}],
	["Kind", one => h("small", one.kind)],
	["What", named, {class: "name", width: "minmax(6rem, max-content)"}],
	["News", words, {width: "minmax(0, 1fr)"}]
]

export function events() {
	let frozen = null
	const pause = () => redraw((frozen = frozen ? null : [...store.news]))
	return {
		title: "Events",
		line: line("watch"),
		view() {
			const kinds = app.search.kinds?.split(",") ?? KINDS.slice(0, -1)
			const toggle = kind => search({kinds: KINDS.filter(one => kinds.includes(one) !== (one === kind)).join(",") || "none"})
			const fits = one => kinds.includes(one.kind) && among(app.search.q, one.kind, one.id, one.value?.routine, one.value?.state, one.value?.phase)
			const shown = (frozen ?? store.news).filter(fits).slice(-SHOWN).reverse()
			const missed = store.news.filter(one => one.number > (frozen?.at(-1)?.number ?? 0)).length
			return [
				head("Events", button(frozen ? `Resume (${missed} new)` : "Pause", {class: frozen && "primary", "aria-pressed": String(Boolean(frozen)), onclick: pause})),
				chips("Kinds", KINDS, kind => kinds.includes(kind), toggle),
				shown.length ? table("Events", COLUMNS, shown, one => ({key: one.number})) : empty("Quiet", "What changes from now on appears here. The same in a terminal:", line("watch"))
			]
		}
	}
}

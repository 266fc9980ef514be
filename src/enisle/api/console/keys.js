import {app, go} from "./app.js"
import {button, close, copy, isOpen, say, show} from "./parts.js"
import {h} from "./dom.js"
import {createIsland} from "./islands.js"

const PAGES = {i: "islands", m: "vms", t: "tasks", h: "hosts", e: "events"}
const HELP = {
	"/": "filter the list", "j k": "next and previous row", Enter: "open the row", Esc: "close, leave, go back up", c: "create an island",
	"g i": "islands; g m machines, g t tasks, g h hosts, g e events", y: "copy the command line below", "?": "this help"
}
const ACTS = {
	"/": () => focusOn(document.getElementById("filter")),
	j: () => step(1),
	k: () => step(-1),
	Enter: () => document.activeElement.matches("[data-href]") && (go(document.activeElement.dataset.href), true),
	c: () => (createIsland(), true),
	y: () => (copy(app.line, document.querySelector("#strip code")), say("Copied", {line: app.line}), true),
	"?": () => (help(), true)
}

export function listenToKeys() {
	let first = ""
	document.addEventListener("keydown", event => {
		if (event.ctrlKey || event.metaKey || event.altKey || isOpen()) return
		const typing = event.target.closest("input, textarea, select")
		if (event.key === "Escape") return leave(typing)
		if (typing) return
		const page = first === "g" && PAGES[event.key]
		first = event.key
		if (page) go(`#/${page}`)
		else if (!ACTS[event.key]?.()) return
		event.preventDefault()
	})
}

function leave(typing) {
	if (typing?.id === "filter" && typing.value) {
		typing.value = ""
		typing.dispatchEvent(new Event("input"))
	} else if (typing || document.activeElement.matches("[data-href]")) document.activeElement.blur()
	else if (app.parts.length > 1) go(`#/${app.parts[0]}`)
}

function focusOn(node) {
	node?.focus()
	return Boolean(node)
}

function step(by) {
	const rows = [...document.querySelectorAll("#page .row[tabindex]")]
	const at = rows.indexOf(document.activeElement)
	const row = rows[at < 0 && by < 0 ? rows.length - 1 : Math.min(rows.length - 1, Math.max(0, at + by))]
	row?.scrollIntoView({block: "nearest"})
	return focusOn(row)
}

export const help = () =>
	show(() => h("div", h("h2", "Keyboard"),
		h("dl.facts", Object.entries(HELP).map(([keys, text]) => h("div", h("dt", keys.split(" ").map(key => h("kbd", key))), h("dd", text)))),
		h("div.answers", button("Close", {autofocus: true, onclick: close}))))

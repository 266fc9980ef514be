import {app, readAddress, redraw} from "./app.js"
import {h, render} from "./dom.js"
import {events} from "./events.js"
import {host, hosts, machine, machines} from "./hosts.js"
import {island} from "./island.js"
import {islands} from "./islands.js"
import {help, listenToKeys} from "./keys.js"
import {button, close, commandLine, drawDialogs, empty, field, isOpen, problemView} from "./parts.js"
import {call} from "./rest.js"
import {ended, store} from "./store.js"
import {task, tasks} from "./tasks.js"

// Who may come in: the address that `enisle up` prints signs in by itself; elsewhere a token is pasted.
let refused = null // why nobody came in
let busy = false

async function enter(event) {
	event.preventDefault()
	sessionStorage.token = new FormData(event.target).get("token").trim()
	redraw((busy = true))
	try {
		await call("GET", "/v1/sessions")
		refused = null
		store.retry()
	} catch (refusal) {
		sessionStorage.token = ""
		refused = refusal
	}
	redraw((busy = false))
}

const signIn = () =>
	h("form.sign-in", {key: "sign-in", onsubmit: enter},
		h("h1", "Sign in"),
		h("p", "This prints an address that signs in by itself:"), commandLine("enisle up"),
		h("p", "Or make a token and paste it; this tab keeps it until it is closed:"), commandLine("enisle token new --scope admin console"),
		field("Token", h("input.mono", {name: "token", type: "password", required: true, autocomplete: "off"})),
		problemView(refused),
		h("div.answers", h("button.primary", {type: "submit", disabled: busy}, "Sign in")))

const LISTS = {islands, vms: machines, tasks, hosts, events}
const DETAILS = {islands: island, vms: machine, tasks: task, hosts: host}
const nowhere = () => ({title: "Nothing here", line: "enisle --help", view: () => empty("There is no such page", h("a", {href: "#/islands"}, "Islands"))})
const node = id => document.getElementById(id)
let page = null
let pointed = "" // the command line of the control under the pointer or the focus

function open() {
	page?.close?.()
	readAddress()
	const [first, ...names] = app.parts
	page = ((names.length ? DETAILS : LISTS)[first] ?? nowhere)(...names)
	pointed = ""
	if (isOpen()) close()
	scrollTo(0, 0)
	app.draw()
}

app.draw = () => {
	const out = store.link.state === "signed out"
	app.line = out ? "" : pointed || page.line
	document.body.classList.toggle("signed-out", out)
	document.title = `${out ? "Sign in" : page.title} · Enisle`
	drawLink()
	for (const entry of document.querySelectorAll("#nav a")) drawEntry(entry)
	render(node("page"), out ? signIn() : page.view())
	drawDialogs()
	drawLine()
}

const drawLine = () => render(node("strip"), app.line && [h("span.prompt", "$"), commandLine(app.line)])

function drawEntry(entry) {
	const name = entry.hash.slice(2)
	const count = {islands: store.island.size, vms: store.vm.size, hosts: store.host.size, tasks: [...store.task.values()].filter(one => !ended(one)).length}[name]
	render(entry.lastElementChild, count || "")
	entry.ariaCurrent = name === app.parts[0] ? "page" : null
}

function drawLink() {
	const {state, problem, since} = store.link
	const lost = state === "lost"
	render(node("link"), lost ? "reconnecting" : state)
	node("link").dataset.state = state
	node("banner").hidden = !lost
	const old = store.loaded ? ` – what you see is from ${Math.floor((Date.now() - since) / 1000)} s ago.` : " …"
	render(node("banner"), lost && [h("span", h("b", "Reconnecting"), old), problem?.status && problemView(problem), button("Try now", {onclick: () => store.retry()})])
}

function changeTheme() {
	const {dataset} = document.documentElement
	const dark = dataset.theme ? dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches
	localStorage.setItem("enisle.theme", (dataset.theme = dark ? "light" : "dark"))
}

function point({type, target}) {
	const line = target.closest?.(type === "focusin" ? "[data-cli]" : "button[data-cli]")?.dataset.cli
	if (!line || line === pointed) return
	app.line = pointed = line
	drawLine()
}

addEventListener("hashchange", open)
document.addEventListener("focusin", point)
document.addEventListener("mouseover", point)
node("help").onclick = help
node("theme").onclick = changeTheme
listenToKeys()
setInterval(() => document.hidden || redraw(), 1000)
open()
store.run()

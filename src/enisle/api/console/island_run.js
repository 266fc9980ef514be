import {redraw, to} from "./app.js"
import {h} from "./dom.js"
import {duration, line, program, short} from "./format.js"
import {button, link, problemView} from "./parts.js"
import {at, call} from "./rest.js"
import {ended, store} from "./store.js"
import {follow, Terminal} from "./terminal.js"

const KEPT_LINES = 100
const LAST_WORDS_MS = 3000
const SHELL = ["sh", "-c", "exec $(command -v bash || echo sh)"]
const sessions = new Map()

class Session {
	terminal = new Terminal()
	typed = []
	back = 0
	text = ""
	task = null
	problem = null

	constructor(name) {
		this.name = name
	}

	run() {
		const {text} = this
		const argv = program(text)
		if (!argv.length || this.task) return
		this.typed = [...this.typed.filter(one => one !== text), text].slice(-KEPT_LINES);
		[this.back, this.text] = [0, ""]
		this.terminal.note(`$ ${text}`, "typed")
		this.#start({argv})
	}

	shell() {
		if (!this.task) this.#start({argv: SHELL, input: "open", tty: true, env: {TERM: "xterm"}, ...this.terminal.fits()})
	}

	async #start(body) {
		[this.problem, this.task] = [null, {id: ""}]
		redraw()
		let stop = () => {}
		try {
			this.task = await call("POST", at`/v1/islands/${this.name}/exec`, {body: {...body, if_blocked: "fail"}})
			store.offer(this.task)
			if (body.tty) stop = this.terminal.typeInto(this.task.id)
			await this.#listen(this.task.id)
		} catch (problem) {
			this.problem = problem
		}
		stop()
		this.task = null
		redraw()
	}

	async #listen(id) {
		const stop = new AbortController()
		const reading = follow(at`/v1/tasks/${id}/output`, this.terminal, {signal: stop.signal}).catch(problem => (this.problem = problem))
		let told = this.task
		while (!ended(told)) told = await call("GET", at`/v1/tasks/${id}`, {search: {wait: 25}})
		await Promise.race([reading, new Promise(done => setTimeout(done, LAST_WORDS_MS))])
		stop.abort()
		this.terminal.note(endOf(told), told.result?.exit_code === 0 ? "note" : "note bad")
	}

	cancel() {
		if (this.task?.id) call("POST", at`/v1/tasks/${this.task.id}/cancel`, {body: {why: "stopped in the console"}}).catch(problem => redraw((this.problem = problem)))
	}

	recall(by) {
		this.back = Math.min(this.typed.length, Math.max(0, this.back + by))
		this.text = this.back ? this.typed.at(-this.back) : ""
	}
}

function endOf({id, state, result, failure, started, finished}) {
	const after = ` after ${duration(result?.seconds ?? finished - started)}`
	if (state === "failed") return [failure?.message, failure?.why, failure?.hint && `hint: ${failure.hint}`].filter(Boolean).join(" – ") || "failed"
	if (state === "cancelled") return `cancelled${after}`
	return `${result?.timed_out ? "out of time" : `exit ${result?.exit_code ?? "?"}`}${after} · task ${short(id)}`
}

export function runPart(name) {
	if (!sessions.has(name)) sessions.set(name, new Session(name))
	const session = sessions.get(name)
	return {
		get line() {
			return line("island", "exec", name, "--", program(session.text || session.typed.at(-1) || "ls -l /"))
		},
		view: one => [
			h("div", {key: "screen", opaque: true, mount: node => node.append(session.terminal.element)}),
			prompt(session, one),
			problemView(session.problem),
			h("p.aside", "Plain words run as they stand; with ", h("code", "| > $ *"), " a shell is asked. ↑ recalls.")
		]
	}
}

function prompt(session, one) {
	const busy = Boolean(session.task)
	const held = store.holder(`island.${one.name}`)?.mode === "exclusive"
	const keydown = event => {
		if (event.key === "c" && event.ctrlKey && busy && !String(getSelection())) session.cancel()
		else if (/^Arrow(Up|Down)$/.test(event.key)) session.recall(event.key === "ArrowUp" ? 1 : -1)
		else return
		event.preventDefault()
		redraw()
	}
	const onsubmit = event => {
		event.preventDefault()
		event.target.elements.command.value = "" // what was typed since the last drawing, too
		session.run()
	}
	const placeholder = session.terminal.size ? "keys go to the shell above" : busy ? "running – Ctrl-C stops it" : held ? "the island is held by a task" : one.state === "running" ? "a command" : `the island is ${one.state}`
	return h("form.prompt-row", {key: "prompt", onsubmit},
		h("span", "$"),
		h("input", {
			key: "command", id: "command", class: "mono", value: session.text, placeholder, label: "Command", autocomplete: "off", autocapitalize: "off", spellcheck: "false", readonly: busy,
			oninput: ({target}) => redraw((session.text = target.value)), onkeydown: keydown, mount: node => setTimeout(() => node.focus({preventScroll: true}))
		}),
		busy
			? [h("span", {key: "task"}, link(to("tasks", session.task.id), "task")), button("Stop", {key: "stop", onclick: () => session.cancel(), cli: line("task", "cancel", session.task.id)})]
			: [h("button.primary", {key: "run", type: "submit", resource: `island.${one.name}`, mode: "shared", disabled: one.state !== "running"}, "Run"), button("Open a shell", {key: "shell", resource: `island.${one.name}`, mode: "shared", disabled: one.state !== "running", onclick: () => session.shell(), cli: line("island", "exec", "-it", one.name, "--", SHELL)}), button("Clear", {key: "clear", class: "quiet", onclick: () => session.terminal.clear()})])
}

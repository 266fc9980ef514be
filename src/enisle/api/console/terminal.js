// A terminal view: text of programs with colours, a cursor and what line editors and pagers do with it; bounded, and
// never markup. A part of a VT100: one screen that grows upwards, no scroll regions, no second screen.

import {at, call} from "./rest.js"

const LINES = 5000
const WIDTH = 4000
const DRAW_MS = 30
const ESCAPE = /\x1b\[([0-9;:?<=>]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()*+][0-9A-Za-z]|\x1b[@-Z\\^_=>78c]|[\x00-\x1f\x7f-\x9f]/g
const UNFINISHED = /\x1b(?:\[[0-9;:?<=>]{0,64}[ -/]{0,4}|\][^\x07\x1b]{0,512}|[()*+])?$/
const SWITCHES = {1: ["bold", 1], 2: ["dim", 1], 4: ["underline", 1], 7: ["inverse", 1], 22: ["bold dim"], 24: ["underline"], 27: ["inverse"], 39: ["fore"], 49: ["back"]}
const WAIT_S = 20
const PAUSE_MS = 250
const LOST_MS = 1000
const BLANK = [" ", {}]
const KEYS = {Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", ArrowUp: "\x1b[A", ArrowDown: "\x1b[B", ArrowRight: "\x1b[C", ArrowLeft: "\x1b[D", Home: "\x1b[H", End: "\x1b[F", Delete: "\x1b[3~", PageUp: "\x1b[5~", PageDown: "\x1b[6~"}

export class Terminal {
	element = document.createElement("div")
	empty = true
	size = null // {rows, columns} while somebody types
	#decoders = {}
	#held = {}
	#codes = {}
	#style = {}
	#lines = [] // the last ones, from the top of the screen: {cells: [[character, style]], node}
	#row = 0
	#column = 0
	#changed = new Set()
	#dropped = 0
	#timer = 0

	constructor() {
		this.element.className = "terminal"
		this.element.tabIndex = 0
		this.element.role = "log"
		this.element.ariaLabel = "Output"
	}

	write(bytes, stream = "stdout") {
		const decoder = (this.#decoders[stream] ??= new TextDecoder())
		let text = (this.#held[stream] ?? "") + decoder.decode(bytes, {stream: true})
		this.#held[stream] = text.match(UNFINISHED)?.[0] ?? ""
		text = text.slice(0, text.length - this.#held[stream].length)
		this.#restyle(stream)
		let place = 0
		for (const match of text.matchAll(ESCAPE)) {
			this.#plain(text.slice(place, match.index))
			place = match.index + match[0].length
			this.#control(match, stream)
		}
		this.#plain(text.slice(place))
		this.empty = false
		this.draw()
	}

	note(text, kind) {
		if (this.#cells().length) this.#newLine()
		this.#style = {classes: kind}
		this.#plain(text)
		this.#newLine()
		this.draw()
	}

	clear() {
		[this.#lines, this.#row, this.#column, this.#dropped, this.empty] = [[], 0, 0, 0, true]
		this.element.replaceChildren()
		this.draw()
	}

	#cells() {
		while (this.#lines.length <= this.#row) this.#lines.push({cells: [], node: null})
		this.#changed.add(this.#lines[this.#row])
		return this.#lines[this.#row].cells
	}

	#plain(text) {
		let cells = this.#cells()
		for (const character of text) {
			if (this.#column >= (this.size?.columns ?? WIDTH)) {
				this.#newLine()
				cells = this.#cells()
			}
			while (cells.length < this.#column) cells.push(BLANK)
			cells[this.#column++] = [character, this.#style]
		}
	}

	#control([whole, parameters = "", final], stream) {
		const [first, second] = parameters.split(";").map(Number)
		const n = first || 1
		const top = Math.max(0, this.#lines.length - (this.size?.rows ?? 1))
		const cells = this.#cells()
		const blanks = Array(Math.min(n, WIDTH)).fill(BLANK)
		if (whole === "\n") this.#newLine()
		else if (whole === "\r") this.#column = 0
		else if (whole === "\b" || final === "D") this.#column = Math.max(0, this.#column - n)
		else if (whole === "\t") this.#plain(" ".repeat(8 - (this.#column % 8)))
		else if (final === "C") this.#column = Math.min(WIDTH, this.#column + n)
		else if (final === "G") this.#column = Math.min(WIDTH, n) - 1
		else if (final === "A") this.#row = Math.max(top, this.#row - n)
		else if (final === "B") this.#row = Math.min(this.#lines.length - 1, this.#row + n)
		else if (this.size && /^[Hfd]$/.test(final)) {
			this.#row = top + Math.min(n, this.size.rows) - 1
			if (final !== "d") this.#column = Math.min(WIDTH, second || 1) - 1
		} else if (final === "m") this.#select((parameters || "0").split(/[;:]/).map(Number), stream)
		else if (final === "K" && first === 1) for (let place = 0; place <= this.#column && place < cells.length; place++) cells[place] = BLANK
		else if (final === "K") cells.length = first ? 0 : Math.min(cells.length, this.#column)
		else if (final === "P") cells.splice(this.#column, n)
		else if (final === "@") cells.splice(this.#column, 0, ...blanks)
		else if (final === "X") cells.splice(this.#column, n, ...blanks)
		else if (final === "J" && !first) {
			cells.length = Math.min(cells.length, this.#column)
			for (const {node} of this.#lines.splice(this.#row + 1)) node?.remove()
		} else if ((final === "J" && first > 1) || whole === "\x1bc") this.clear()
	}

	#select(codes, stream) {
		for (let i = 0; i < codes.length; i++) {
			const code = codes[i]
			const place = code < 40 || (code >= 90 && code < 98) ? "fore" : "back"
			if (code === 0) this.#codes = {}
			else if (SWITCHES[code]) for (const name of SWITCHES[code][0].split(" ")) this.#codes[name] = SWITCHES[code][1]
			else if (code === 38 || code === 48) {
				this.#codes[place] = indexed(codes.slice(i + 1, i + 5))
				i += codes[i + 1] === 2 ? 4 : 2
			} else if ((code >= 30 && code < 48) || (code >= 90 && code < 108)) this.#codes[place] = named(code % 10, code >= 90)
		}
		this.#restyle(stream)
	}

	#restyle(stream) {
		const {fore, back, inverse, ...marks} = this.#codes
		const [front, behind] = inverse ? [back || "var(--screen)", fore || "var(--ink)"] : [fore, back]
		this.#style = {classes: [stream, ...Object.keys(marks).filter(name => marks[name])].join(" "), front, behind}
	}

	#newLine() {
		[this.#row, this.#column] = [this.#row + 1, 0]
		this.#cells()
		for (; this.#lines.length > LINES; this.#row--, this.#dropped++) this.#lines.shift().node?.remove()
	}

	draw() {
		this.#timer ||= setTimeout(() => this.#flush(), DRAW_MS)
	}

	#flush() {
		this.#timer = 0
		const node = this.element
		const atEnd = node.scrollHeight - node.scrollTop - node.clientHeight < 40
		this.#cells()
		const fresh = []
		for (const one of this.#lines) {
			if (!this.#changed.has(one)) continue
			if (!one.node) fresh.push((one.node = document.createElement("div")))
			one.node.replaceChildren(...runs(one.cells, this.size && one === this.#lines[this.#row] ? this.#column : -1))
		}
		this.#changed.clear()
		if (this.size) this.#changed.add(this.#lines[this.#row]) // the cursor leaves it
		node.append(...fresh)
		if (this.#dropped) {
			if (node.firstChild.className !== "dropped") node.prepend(Object.assign(document.createElement("div"), {className: "dropped"}))
			node.firstChild.textContent = `… ${this.#dropped} earlier lines`
		}
		if (atEnd) node.scrollTop = node.scrollHeight
	}

	fits() {
		const probe = document.createElement("span")
		probe.textContent = "0".repeat(100)
		this.element.append(probe)
		const {width} = probe.getBoundingClientRect()
		probe.remove()
		const side = (room, one, least) => Math.max(least, Math.floor(room / one) || 0)
		return {rows: side(this.element.clientHeight - 24, 19, 4), columns: side(this.element.clientWidth - 34, width / 100, 20)}
	}

	typeInto(id) {
		const {element} = this
		const path = at`/v1/tasks/${id}`
		const writer = crypto.randomUUID()
		let [offset, waiting, busy] = [0, new Uint8Array(), false]
		const send = async text => {
			waiting = new Uint8Array([...waiting, ...new TextEncoder().encode(text)])
			if (busy) return
			for (busy = true; waiting.length && this.size; ) {
				try {
					const told = await call("POST", `${path}/input`, {search: {offset, writer}, body: new Blob([waiting.slice(0, 65536)])})
					waiting = waiting.slice(told.next - offset)
					offset = told.next
					if (told.later) await pause(PAUSE_MS)
				} catch (problem) {
					if (problem.status && problem.status < 500) stop()
					await pause(LOST_MS)
				}
			}
			busy = false
		}
		const resize = () => {
			this.size = this.fits()
			call("POST", `${path}/terminal`, {body: this.size}).catch(() => {})
		}
		const stop = () => {
			this.size = element.onkeydown = element.onpaste = null
			removeEventListener("resize", resize)
			this.draw()
		}
		element.onkeydown = event => {
			const text = typedBy(event)
			if (!text || (text === "\x03" && String(getSelection()))) return
			event.preventDefault()
			event.stopPropagation()
			send(text)
		}
		element.onpaste = event => send(event.clipboardData.getData("text").replaceAll("\n", "\r"))
		addEventListener("resize", resize)
		resize()
		element.focus()
		return stop
	}
}

// Shift-Tab leaves the terminal, Ctrl-V pastes into it; with AltGr, Ctrl and Alt mean nothing by themselves.
function typedBy({key, ctrlKey, altKey, metaKey, shiftKey}) {
	if (metaKey || (key === "Tab" && shiftKey) || (ctrlKey && key === "v")) return ""
	if (ctrlKey && !altKey) return /^[a-z@[\\\]^_ ]$/i.test(key) ? String.fromCharCode(key.toUpperCase().charCodeAt(0) & 31) : ""
	const text = KEYS[key] ?? ([...key].length === 1 ? key : "")
	return altKey && !ctrlKey && text ? `\x1b${text}` : text
}

// Bright ones are nearer to the text: eight colours are enough for a calm page.
const named = (n, bright) => (bright ? `color-mix(in srgb, var(--ansi-${n}), var(--ink) 25%)` : `var(--ansi-${n})`)

// 38;2;r;g;b as it is; of 38;5;n the eight colours there are, the others as plain text (ISO 8613-6).
function indexed([kind, n, green, blue]) {
	if (kind === 2) return `rgb(${[n, green, blue].map(value => Math.min(255, value || 0)).join(" ")})`
	return n < 16 ? named(n % 8, n > 7) : ""
}

function runs(cells, cursor) {
	if (cursor >= 0) {
		cells = Array.from({length: Math.max(cells.length, cursor + 1)}, (_, place) => cells[place] ?? BLANK)
		cells[cursor] = [cells[cursor][0], {classes: "cursor"}]
	}
	const made = []
	for (let place = 0; place < cells.length; ) {
		const style = cells[place][1]
		const span = document.createElement("span")
		let text = ""
		for (; place < cells.length && cells[place][1] === style; place++) text += cells[place][0]
		span.textContent = text
		span.className = style.classes ?? ""
		Object.assign(span.style, {color: style.front ?? "", backgroundColor: style.behind ?? ""})
		made.push(span)
	}
	return made
}

export async function follow(path, terminal, {signal, tail, tell = () => {}}) {
	for (let after = 0, first = true; !signal.aborted; first = false) {
		const began = performance.now()
		try {
			const told = await call("GET", path, {search: {after, wait: first ? 0 : WAIT_S, tail: first && tail}, signal})
			for (const {data, stream} of told.chunks) terminal.write(Uint8Array.from(atob(data), character => character.charCodeAt(0)), stream)
			if (told.truncated && first) terminal.note("earlier output was not kept", "note")
			after = told.next
			tell(told)
			if (told.chunks.length) continue
			if (told.ended) return
		} catch (problem) {
			if (signal.aborted) return
			if (problem.status && problem.status < 500) throw problem
			await pause(LOST_MS)
		}
		if (performance.now() - began < PAUSE_MS) await pause(PAUSE_MS)
	}
}

const pause = milliseconds => new Promise(done => setTimeout(done, milliseconds))

export function screen(path, {tail, changed, failed, typed}) {
	const terminal = new Terminal()
	const stop = new AbortController()
	let leave = () => {}
	follow(path, terminal, {signal: stop.signal, tail, tell: changed}).catch(failed).finally(() => leave())
	const close = () => (stop.abort(), leave())
	const mount = node => {
		node.append(terminal.element)
		setTimeout(() => typed?.() && (leave = terminal.typeInto(typed())))
	}
	return {terminal, close, mount}
}

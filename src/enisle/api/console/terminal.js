// A terminal view: text of programs with colours, carriage returns and erased lines; bounded, and never markup.
// Not a full terminal: cursor addressing is dropped, what is drawn stays in order.

import { call } from "./rest.js";

const LINES = 5000;
const WIDTH = 4000;
const DRAW_MS = 30;
const ESCAPE = /\x1b\[([0-9;:?<=>]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()*+][0-9A-Za-z]|\x1b[@-Z\\^_=>78c]|[\x00-\x1f\x7f-\x9f]/g;
const UNFINISHED = /\x1b(?:\[[0-9;:?<=>]{0,64}[ -/]{0,4}|\][^\x07\x1b]{0,512}|[()*+])?$/;
const SWITCHES = { 1: ["bold", 1], 2: ["dim", 1], 4: ["underline", 1], 7: ["inverse", 1], 22: ["bold dim"], 24: ["underline"], 27: ["inverse"], 39: ["fore"], 49: ["back"] };
const WAIT_S = 20;
const PAUSE_MS = 250;
const LOST_MS = 1000;

export class Terminal {
	element = document.createElement("div");
	empty = true;
	#decoders = {};
	#held = {};
	#codes = {};
	#style = {};
	#cells = []; // of the current line: [character, style]
	#column = 0;
	#done = []; // finished lines that are not drawn yet
	#last = document.createElement("div");
	#dropped = 0;
	#timer = 0;

	constructor() {
		this.element.className = "terminal";
		this.element.tabIndex = 0;
		this.element.role = "log";
		this.element.ariaLabel = "Output";
		this.element.append(this.#last);
	}

	/** Take bytes of a stream ("stdout", "stderr"); what is split between two calls is put together again. */
	write(bytes, stream = "stdout") {
		const decoder = (this.#decoders[stream] ??= new TextDecoder());
		let text = (this.#held[stream] ?? "") + decoder.decode(bytes, { stream: true });
		this.#held[stream] = text.match(UNFINISHED)?.[0] ?? "";
		text = text.slice(0, text.length - this.#held[stream].length);
		this.#restyle(stream);
		let at = 0;
		for (const match of text.matchAll(ESCAPE)) {
			this.#plain(text.slice(at, match.index));
			at = match.index + match[0].length;
			this.#control(match, stream);
		}
		this.#plain(text.slice(at));
		this.empty = false;
		this.#draw();
	}

	/** Take a line of our own, set apart from what programs say. */
	note(text, kind) {
		if (this.#cells.length) this.#newLine();
		this.#style = { classes: kind };
		this.#plain(text);
		this.#newLine();
		this.#draw();
	}

	clear() {
		[this.#done, this.#cells, this.#column, this.#dropped, this.empty] = [[], [], 0, 0, true];
		this.element.replaceChildren(this.#last);
		this.#draw();
	}

	#plain(text) {
		for (const character of text) {
			if (this.#column >= WIDTH) this.#newLine();
			this.#cells[this.#column++] = [character, this.#style];
		}
	}

	#control([whole, parameters, final], stream) {
		if (whole === "\n") this.#newLine();
		else if (whole === "\r") this.#column = 0;
		else if (whole === "\b") this.#column = Math.max(0, this.#column - 1);
		else if (whole === "\t") this.#plain(" ".repeat(8 - (this.#column % 8)));
		else if (final === "m") this.#select((parameters || "0").split(/[;:]/).map(Number), stream);
		else if (final === "K") this.#cells = parameters === "2" ? [] : this.#cells.slice(0, this.#column);
		else if ((final === "J" && /^[23]$/.test(parameters)) || whole === "\x1bc") this.clear();
		while (this.#cells.length < this.#column) this.#cells.push([" ", this.#style]);
	}

	#select(codes, stream) {
		for (let i = 0; i < codes.length; i++) {
			const code = codes[i];
			const place = code < 40 || (code >= 90 && code < 98) ? "fore" : "back";
			if (code === 0) this.#codes = {};
			else if (SWITCHES[code]) for (const name of SWITCHES[code][0].split(" ")) this.#codes[name] = SWITCHES[code][1];
			else if (code === 38 || code === 48) {
				this.#codes[place] = indexed(codes.slice(i + 1, i + 5));
				i += codes[i + 1] === 2 ? 4 : 2;
			} else if ((code >= 30 && code < 48) || (code >= 90 && code < 108)) this.#codes[place] = named(code % 10, code >= 90);
		}
		this.#restyle(stream);
	}

	#restyle(stream) {
		const { fore, back, inverse, ...marks } = this.#codes;
		const [front, behind] = inverse ? [back || "var(--screen)", fore || "var(--ink)"] : [fore, back];
		this.#style = { classes: [stream, ...Object.keys(marks).filter((name) => marks[name])].join(" "), front, behind };
	}

	#newLine() {
		this.#done.push(this.#cells);
		if (this.#done.length > LINES) this.#dropped += this.#done.splice(0, this.#done.length - LINES).length;
		[this.#cells, this.#column] = [[], 0];
	}

	#draw() {
		this.#timer ||= setTimeout(() => this.#flush(), DRAW_MS);
	}

	#flush() {
		this.#timer = 0;
		const node = this.element;
		const atEnd = node.scrollHeight - node.scrollTop - node.clientHeight < 40;
		const lines = this.#done.map((cells) => {
			const line = document.createElement("div");
			line.append(...runs(cells));
			return line;
		});
		this.#done = [];
		this.#last.before(...lines);
		this.#last.replaceChildren(...runs(this.#cells));
		this.#trim(node.childNodes);
		if (atEnd) node.scrollTop = node.scrollHeight;
	}

	#trim(nodes) {
		const marked = nodes[0].className === "dropped" ? 1 : 0;
		for (; nodes.length - marked > LINES; this.#dropped++) nodes[marked].remove();
		if (!this.#dropped) return;
		if (!marked) this.element.prepend(Object.assign(document.createElement("div"), { className: "dropped" }));
		nodes[0].textContent = `… ${this.#dropped} earlier lines`;
	}
}

// Bright ones are nearer to the text: eight colours are enough for a calm page.
const named = (n, bright) => (bright ? `color-mix(in srgb, var(--ansi-${n}), var(--ink) 25%)` : `var(--ansi-${n})`);

// 38;2;r;g;b as it is; of 38;5;n the eight colours there are, the others as plain text (ISO 8613-6).
function indexed([kind, n, green, blue]) {
	if (kind === 2) return `rgb(${[n, green, blue].map((value) => Math.min(255, value || 0)).join(" ")})`;
	return n < 16 ? named(n % 8, n > 7) : "";
}

function runs(cells) {
	const made = [];
	for (let at = 0; at < cells.length; ) {
		const style = cells[at][1];
		const span = document.createElement("span");
		let text = "";
		for (; at < cells.length && cells[at][1] === style; at++) text += cells[at][0];
		span.textContent = text;
		span.className = style.classes;
		Object.assign(span.style, { color: style.front ?? "", backgroundColor: style.behind ?? "" });
		made.push(span);
	}
	return made;
}

/** Follow output by long polls until it has ended or `signal` aborts: a lost poll is asked again from the same place.
 *  Raises Problem for what waiting cannot mend. */
export async function follow(path, terminal, { signal, tail, tell = () => {} }) {
	for (let after = 0, first = true; !signal.aborted; first = false) {
		const began = performance.now();
		try {
			const told = await call("GET", path, { search: { after, wait: first ? 0 : WAIT_S, tail: first && tail }, signal });
			for (const { data, stream } of told.chunks) terminal.write(Uint8Array.from(atob(data), (character) => character.charCodeAt(0)), stream);
			if (told.truncated && first) terminal.note("earlier output was not kept", "note");
			after = told.next;
			tell(told);
			if (told.chunks.length) continue;
			if (told.ended) return;
		} catch (problem) {
			if (signal.aborted) return;
			if (problem.status && problem.status < 500) throw problem;
			await pause(LOST_MS);
		}
		if (performance.now() - began < PAUSE_MS) await pause(PAUSE_MS);
	}
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** A part of a page that shows output as it comes: {view(told), close()}. */
export function screen(path, { tail, changed, failed }) {
	const terminal = new Terminal();
	const stop = new AbortController();
	follow(path, terminal, { signal: stop.signal, tail, tell: changed }).catch(failed);
	return { terminal, close: () => stop.abort(), mount: (node) => node.append(terminal.element) };
}

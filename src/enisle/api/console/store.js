// What the platform holds, as far as this browser was told: one stream of events feeds it, every page draws from it.
// A stream that breaks is resumed where it ended; after `reset`, or without such a place, all is learned anew.

import {listen, owner} from "./rest.js"

const KINDS = ["task", "lock", "host", "island", "vm", "progress"]
const SILENCE_MS = 25_000 // the server says something every 10 s
const HIDDEN_MS = 15_000 // a browser has six connections to a server: pages that nobody sees give theirs back
const LONG_MS = 3_600_000
const KEPT_NEWS = 1000
const KEPT_PHASES = 30

export const ended = task => ["done", "failed", "cancelled"].includes(task?.state)

class Store {
	link = {state: "connecting", problem: null, since: Date.now()}
	news = []
	phases = new Map()
	loaded = false
	tenants = new Set()
	changed = () => {}
	#lastId = ""
	#seen = null // while a snapshot comes: what it named
	#every = "?tenant=*" // what only an administrator is told
	#wake = () => {}

	constructor() {
		for (const kind of KINDS) this[kind] = new Map()
		owner.known = new Promise(known => (this.known = known))
		owner.of = (method, path) => {
			const [, kind, id] = (this.#every && path.match(/^\/v1\/(island|vm|task)s\/?([^/]*)/)) || []
			const one = this[kind]?.get(id)
			return one ? this.tenants.size > 1 && one.tenant : kind && method === "GET" && "*"
		}
	}

	async run() {
		document.addEventListener("visibilitychange", () => document.hidden || this.#wake())
		for (let failures = 0; ; failures++) {
			while (document.hidden && this.loaded) await this.#sleep(LONG_MS)
			const problem = await this.#read().catch(error => error)
			if (problem?.status === 403 && this.#every) {
				this.#every = ""
				continue
			}
			this.known()
			if (this.link.state === "live") failures = 0
			if (problem?.status === 400) this.#lastId = ""
			this.#tell(problem?.status === 401 ? "signed out" : "lost", problem)
			await this.#sleep(problem?.status === 401 ? LONG_MS : failures < 100 ? 250 : 2000)
		}
	}

	retry() {
		this.#wake()
	}

	offer(task) {
		if (task?.id && !this.task.has(task.id)) this.#put("task", task.id, task)
	}

	progressOf(task) {
		return this.progress.get(task) ?? this.task.get(task)?.progress ?? null
	}

	holder(resource) {
		const lock = this.lock.get(resource)
		if (!lock?.holders?.length) return null
		const id = lock.holders[0]
		return {id, mode: lock.mode, count: lock.holders.length, task: this.task.get(id), progress: this.progressOf(id)}
	}

	async #read() {
		const stop = new AbortController()
		let silence = 0
		const alive = () => {
			clearTimeout(silence)
			silence = setTimeout(() => stop.abort(), SILENCE_MS)
		}
		const away = () => document.hidden && setTimeout(() => document.hidden && stop.abort(), HIDDEN_MS)
		const opened = () => {
			this.known()
			if (!this.#lastId) this.#seen = new Set()
		}
		document.addEventListener("visibilitychange", away)
		away()
		alive()
		try {
			await listen(`/v1/events${this.#every}`, this.#lastId ? {"Last-Event-ID": this.#lastId} : {}, stop.signal, opened, event => this.#take(event), alive)
		} finally {
			clearTimeout(silence)
			document.removeEventListener("visibilitychange", away)
		}
	}

	#take({event, data, id}) {
		if (event === "reset") [this.#seen, this.#lastId] = [new Set(), ""]
		else if (event === "current") {
			this.#forgetUnseen()
			this.loaded = true
		} else if (KINDS.includes(event)) {
			const told = JSON.parse(data)
			this.#put(event, told.id, told.value)
			if (!this.#seen) this.#remember(event, told)
		}
		// The middle of a snapshot is no place to resume at.
		if (id && !this.#seen) this.#lastId = id
		if (!this.#seen && this.link.state !== "live") this.#tell("live", null)
		this.changed()
	}

	#put(kind, id, value) {
		this.#seen?.add(kind + id)
		if (value?.tenant) this.tenants.add(value.tenant)
		if (!value) this[kind].delete(id)
		else if (kind === "progress") this.#advance(id, value)
		else this[kind].set(id, value)
		if (kind !== "task") return
		if (!value || ended(value)) this.progress.delete(id)
		if (!value) this.phases.delete(id)
	}

	// Never backwards, except for another attempt.
	#advance(id, value) {
		const old = this.progress.get(id)
		if (ended(this.task.get(id)) || old?.attempt > value.attempt || (old?.attempt === value.attempt && old.fraction > value.fraction)) return
		this.progress.set(id, value)
		const phases = this.phases.get(id) ?? []
		const last = phases.at(-1)
		if (!value.phase || (last?.phase === value.phase && last.attempt === value.attempt)) return
		this.phases.set(id, [...phases, {phase: value.phase, attempt: value.attempt, at: Date.now()}].slice(-KEPT_PHASES))
	}

	#forgetUnseen() {
		for (const kind of this.#seen ? KINDS : []) {
			for (const id of this[kind].keys()) if (!this.#seen.has(kind + id)) this[kind].delete(id)
		}
		this.#seen = null
	}

	#remember(kind, {id, value}) {
		this.news.push({at: Date.now(), kind, id, value, number: (this.news.at(-1)?.number ?? 0) + 1})
		if (this.news.length > KEPT_NEWS * 1.2) this.news = this.news.slice(-KEPT_NEWS)
	}

	#tell(state, problem) {
		this.link = {state, problem, since: this.link.state === state ? this.link.since : Date.now()}
		this.changed()
	}

	#sleep(milliseconds) {
		return new Promise(done => {
			const timer = setTimeout(done, milliseconds)
			this.#wake = () => done(clearTimeout(timer))
		})
	}
}

export const store = new Store()

// Calls of the API, and its streams. A refusal becomes a Problem with its three parts; a lost answer is asked for once
// more with the same idempotency key, so that nothing is done twice.

let ahead = 0

export const now = () => Date.now() / 1000 + ahead

export class Problem extends Error {
	constructor(status, {detail, title, why = "", hint = "", holder = ""}) {
		super(detail || title || `the platform answered ${status}`)
		Object.assign(this, {status, why, hint, holder})
	}
}

export const at = (strings, ...names) => strings.reduce((path, part, i) => path + encodeURIComponent(names[i - 1]) + part)

export const owner = {known: null, of: () => ""}

const headers = more => ({"X-Enisle": "1", ...(sessionStorage.token && {Authorization: `Bearer ${sessionStorage.token}`}), ...more})

const hex = bytes => Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("")

export async function call(method, path, {body, raw, search = {}, signal} = {}) {
	await owner.known
	const more = method === "GET" ? {} : {"Idempotency-Key": hex(crypto.getRandomValues(new Uint8Array(16)))}
	const binary = body instanceof Blob
	if (body) more["Content-Type"] = binary ? "application/octet-stream" : "application/json"
	const given = Object.entries({tenant: owner.of(method, path), ...search}).filter(([, value]) => value || value === 0)
	const url = given.length ? `${path}?${new URLSearchParams(given)}` : path
	const response = await fetchTwice(url, {method, signal, headers: headers(more), body: body && !binary ? JSON.stringify(body) : body})
	if (!response.ok) throw await problemOf(response)
	if (raw) return response
	return response.status === 204 ? null : response.json()
}

async function fetchTwice(url, request) {
	for (let last = false; ; last = true) {
		try {
			const response = await fetch(url, request)
			const skew = Date.parse(response.headers.get("Date")) - Date.now()
			ahead = Math.abs(skew) > 2000 ? skew / 1000 : 0 // the header counts whole seconds
			return response
		} catch (error) {
			if (request.signal?.aborted) throw error
			if (last) throw new Problem(0, {detail: "the platform cannot be reached", why: error.message, hint: "`enisle status` tells whether it runs"})
			await new Promise(done => setTimeout(done, 400))
		}
	}
}

const problemOf = async response => new Problem(response.status, await response.json().catch(() => ({})))

export async function listen(path, more, signal, opened, take, alive) {
	const response = await fetch(path, {headers: headers({Accept: "text/event-stream", ...more}), signal, cache: "no-store"})
	if (!response.ok) throw await problemOf(response)
	opened()
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
	let rest = ""
	let fields = {}
	for (;;) {
		const {value, done} = await reader.read()
		if (done) return
		alive()
		const lines = (rest + value).split(/\r?\n/)
		rest = lines.pop()
		for (const line of lines) {
			const [, name, text] = line.match(/^([^:]*):? ?(.*)$/)
			if (name) fields[name] = text
			else if (!line) {
				if (fields.data) take(fields)
				fields = {}
			}
		}
	}
}

import {store} from "./store.js"

const DRAW_MS = 40 // at most 25 drawings a second, the first at once

export const app = {parts: [], search: {}, line: "", draw: () => {}}
let drawn = 0
let timer = 0

export function redraw() {
	timer ||= setTimeout(() => {
		[timer, drawn] = [0, performance.now()]
		app.draw()
	}, Math.max(0, drawn + DRAW_MS - performance.now()))
}
store.changed = redraw

export const to = (...names) => `#/${names.map(encodeURIComponent).join("/")}`

export function go(hash) {
	if (location.hash === hash) dispatchEvent(new Event("hashchange"))
	else location.hash = hash
}

export function search(values) {
	const given = Object.entries({...app.search, ...values}).filter(([, value]) => value)
	app.search = Object.fromEntries(given)
	history.replaceState(null, "", to(...app.parts) + (given.length ? `?${new URLSearchParams(given)}` : ""))
	redraw()
}

export function readAddress() {
	const [path, query] = location.hash.replace(/^#\/?/, "").split("?")
	try {
		app.parts = (path || "islands").split("/").map(decodeURIComponent)
	} catch {
		app.parts = [path] // an address that is none
	}
	app.search = Object.fromEntries(new URLSearchParams(query))
}

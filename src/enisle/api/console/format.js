import {now} from "./rest.js"
import {store} from "./store.js"

const UNITS = ["B", "K", "M", "G", "T", "P"]
const PLAIN = /^[\w@%+=:,./…-]+$/
const SHELL = /[|&;<>()$`\\*?[\]#~{}!]|^\w+=/

export function bytes(count) {
	if (!Number.isFinite(count)) return "–"
	let unit = 0
	for (; count >= 1024 && unit < 5; unit++) count /= 1024
	return `${unit === 0 || count >= 10 ? Math.round(count) : count.toFixed(1)}${UNITS[unit]}`
}

export function duration(seconds, exact = true) {
	const s = Math.max(0, seconds)
	const two = value => String(Math.floor(value)).padStart(2, "0")
	if (!Number.isFinite(s)) return "–"
	if (s < 1 && exact) return `${Math.round(s * 1000)} ms`
	if (s < 10 && exact) return `${s.toFixed(1)} s`
	if (s < 60) return `${Math.floor(s)} s`
	if (s < 3600) return `${Math.floor(s / 60)} min${exact ? ` ${two(s % 60)} s` : ""}`
	if (s < 86400) return `${Math.floor(s / 3600)} h${exact ? ` ${two((s % 3600) / 60)} min` : ""}`
	return `${Math.floor(s / 86400)} d`
}

export const ago = time => (!time ? "–" : now() - time < 2 ? "just now" : `${duration(now() - time, false)} ago`)
export const moment = time => new Date(time * 1000).toLocaleString(undefined, {dateStyle: "medium", timeStyle: "medium"})
export const clockTime = milliseconds => new Date(milliseconds).toLocaleTimeString(undefined, {hour12: false})
export const clamp = fraction => Math.min(1, Math.max(0, fraction))
export const percent = fraction => (Number.isFinite(fraction) ? `${Math.floor(clamp(fraction) * 100)} %` : "")
export const short = id => String(id ?? "").slice(0, 10)
export const routineName = routine => String(routine ?? "").replace(/@\d+$/, "")
export const json = value => JSON.stringify(value, null, 2)
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`
export const among = (wanted, ...texts) => texts.some(text => String(text ?? "").toLowerCase().includes((wanted ?? "").toLowerCase()))

export const quote = word => (PLAIN.test(word) ? word : `'${String(word).replaceAll("'", "'\\''")}'`)

export function line(...words) {
	const all = words.flat(Infinity).filter(Boolean)
	const tenant = store.tenants.size > 1 && (/^(island|task),ls/.test(all) ? "*" : all.map(word => store[all[0]]?.get?.(word)?.tenant).find(Boolean))
	return ["enisle", ...(tenant ? ["--tenant", tenant] : []), ...all].map(quote).join(" ")
}

export function program(text) {
	if (SHELL.test(text.replace(/'[^']*'/g, "''"))) return ["sh", "-c", text]
	const words = []
	let word = null
	for (const [, space, single, double, plain] of text.matchAll(/(\s+)|'([^']*)'|"([^"]*)"|([^\s'"]+|['"])/g)) {
		if (space === undefined) word = (word ?? "") + (single ?? double ?? plain)
		else if (word !== null) word = (words.push(word), null)
	}
	return word === null ? words : [...words, word]
}

import {app, redraw, to} from "./app.js"
import {ask, button, drawDialogs, field, link, none, problemView, started, table} from "./parts.js"
import {h} from "./dom.js"
import {bytes, line, quote} from "./format.js"
import {at, call} from "./rest.js"

const SHOWN = 256 * 1024
const SOON_MS = 800

const within = (path, name) => `${path === "/" ? "" : path}/${name}`
const isDirectory = ({mode}) => mode.startsWith("d")
const address = (name, path) => `${to("islands", name, "files")}?path=${encodeURIComponent(path)}`
const above = path => path.replace(/\/[^/]*$/, "") || "/"
const last = path => path.split("/").at(-1)

export function filesPart(name) {
	const path = app.search.path || "/"
	let entries = null
	let text = null
	let problem = null
	const look = async () => {
		try {
			entries = (await call("GET", at`/v1/islands/${name}/listing`, {search: {path}})).items
		} catch (refusal) {
			problem = refusal
			if (path !== "/" && problem.status < 500) await read().catch(other => (problem = other.status === 404 ? problem : other))
		}
		redraw()
	}
	const read = async () => {
		const blob = await (await call("GET", at`/v1/islands/${name}/files`, {search: {path}, raw: true})).blob()
		text = {blob, words: await blob.slice(0, SHOWN).text()}
		problem = null
	}
	look()
	return {
		get line() {
			return line("island", "files", text ? "cat" : "ls", name, path)
		},
		view: () => [
			h("div.files-head", h("p.mono", path !== "/" && link(address(name, above(path)), "../ "), path), h("span.group",
				text && button("Download", {cli: `${line("island", "files", "cat", name, path)} > ${quote(last(path))}`, onclick: () => save(text.blob, path)}),
				entries && button("Upload…", {resource: `island.${name}`, mode: "shared", cli: line("island", "files", "put", name, within(path, "FILE"), "FILE"), onclick: () => upload(name, path, look)}))),
			problemView(problem),
			entries ? listing(name, path, entries) : text ? content(text) : problem ? null : none("Looking…")
		]
	}
}

function listing(name, path, entries) {
	const rows = [...entries].sort((a, b) => isDirectory(b) - isDirectory(a) || String(a.name).localeCompare(b.name))
	const target = one => address(name, within(path, one.name))
	const columns = [
		["Name", one => link(target(one), one.name + (isDirectory(one) ? "/" : "")), {class: "mono", width: "minmax(0, 1fr)"}],
		["Size", one => (isDirectory(one) ? "" : bytes(one.size)), {class: "number"}],
		["Mode", one => one.mode, {class: "mono minor"}]
	]
	return rows.length ? table("Files", columns, rows, one => ({key: one.name, opens: target(one)})) : none("This directory is empty.")
}

const content = ({words, blob}) => [h("pre", words || "(empty)"), blob.size > SHOWN && none(`The first ${bytes(SHOWN)} of ${bytes(blob.size)}.`)]

function save(blob, path) {
	const node = document.createElement("a")
	node.href = URL.createObjectURL(blob)
	node.download = last(path)
	node.click()
	setTimeout(() => URL.revokeObjectURL(node.href), 10_000)
}

function upload(name, path, look) {
	let file = null
	const target = () => within(path, file?.name ?? "FILE")
	const words = () => line("island", "files", "put", name, target(), file?.name ?? "FILE")
	ask({
		title: `Put a file into ${path}`, label: "Upload", line: words,
		body: () => field("File", h("input", {type: "file", required: true, onchange: event => drawDialogs((file = event.target.files[0]))}), "At most 16M."),
		run: () => call("PUT", at`/v1/islands/${name}/files`, {search: {path: target()}, body: file}),
		done: task => {
			started(`Writing ${target()}`, words(), task)
			setTimeout(look, SOON_MS)
		}
	})
}

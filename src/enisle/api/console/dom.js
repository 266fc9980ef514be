// Trees of elements, drawn by the smallest change. What a server sent becomes text or an attribute's value,
// never markup: nothing here parses any.

const PROPERTIES = ["value", "checked", "disabled", "inert", "selected"]
const ALIASES = {cli: "data-cli", opens: "data-href", label: "aria-label"}
const OURS = ["key", "mount", "opaque", "resource", "mode"]
const DRAWN = "http://www.w3.org/2000/svg"
let decorate = vnode => vnode

export const decorateWith = change => (decorate = change)

export function h(name, props, ...children) {
	if (props === null || typeof props !== "object" || Array.isArray(props) || props.tag) [props, children] = [{}, [props, ...children]]
	const [tag, ...classes] = name.split(".")
	if (classes.length) props = {...props, class: [...classes, props.class].filter(Boolean).join(" ")}
	const vnode = {tag, props, key: props.key, children: children.flat(Infinity)}
	return props.resource ? decorate(vnode) : vnode
}

export function render(parent, ...wanted) {
	const keyed = new Map()
	const plain = []
	for (const node of parent.childNodes) node.vnode?.key === undefined ? plain.push(node) : keyed.set(node.vnode.key, node)
	const nodes = wanted.flat(Infinity).map(want => {
		if (want === null || want === undefined || typeof want === "boolean") want = ""
		const old = want.key === undefined ? plain.shift() : keyed.get(want.key)
		return old && fits(old, want) ? update(old, want) : create(want)
	})
	const kept = new Set(nodes)
	for (const node of [...parent.childNodes]) if (!kept.has(node)) node.remove()
	let place = parent.firstChild
	for (const node of nodes) {
		if (node === place) place = place.nextSibling
		else parent.insertBefore(node, place)
	}
}

const fits = (node, want) => (want.tag ? node.vnode?.tag === want.tag && node.vnode.props.opaque === want.props.opaque : node.nodeType === Node.TEXT_NODE)

function create(want) {
	if (!want.tag) return document.createTextNode(want)
	const node = /^(svg|path)$/.test(want.tag) ? document.createElementNS(DRAWN, want.tag) : document.createElement(want.tag)
	node.vnode = {...want, props: {}}
	update(node, want)
	want.props.mount?.(node)
	return node
}

function update(node, want) {
	if (!want.tag) {
		if (node.data !== String(want)) node.data = want
		return node
	}
	const old = node.vnode.props
	for (const name in {...old, ...want.props}) if (want.props[name] !== old[name]) set(node, name, want.props[name], old[name])
	node.vnode = want
	if (!want.props.opaque) render(node, want.children)
	return node
}

// A field is only written when the page changes its mind, so that redrawing does not undo what is being typed.
// Variables go through the object model: a strict content security policy forbids the attribute `style`.
function set(node, name, value, old) {
	if (OURS.includes(name)) return
	if (name.startsWith("on")) node[name] = value ?? null
	else if (name === "vars") for (const key in {...old, ...value}) node.style.setProperty(key, value?.[key] ?? "")
	else if (PROPERTIES.includes(name)) node[name] = value ?? (name === "value" ? "" : false)
	else if (value === undefined || value === null || value === false) node.removeAttribute(ALIASES[name] ?? name)
	else node.setAttribute(ALIASES[name] ?? name, value === true ? "" : value)
}

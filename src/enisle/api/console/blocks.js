// What a task holds cannot be touched: every element with a `resource` is disabled and overlaid here, and nowhere else,
// while the stream says that its lock is held. The server refuses the same (409); this only shows it.

import {to} from "./app.js"
import {decorateWith, h} from "./dom.js"
import {clamp, percent, routineName, short} from "./format.js"
import {store} from "./store.js"

export function bar(fraction, label) {
	const done = Number.isFinite(fraction) ? clamp(fraction) : null
	const props = {role: "progressbar", label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": done === null ? null : Math.floor(done * 100)}
	return h("span.bar", {...props, class: done === null ? "unknown" : "", vars: {"--done": done ?? 1}}, h("i"))
}

// `mode` "shared" marks what may happen beside others that share; only a task that is alone blocks it.
decorateWith(vnode => {
	const {resource, mode = "exclusive"} = vnode.props
	const holder = store.holder(resource)
	const button = vnode.tag === "button"
	const beside = holder?.mode === "shared" && mode === "shared"
	const props = {...vnode.props, "data-resource": resource}
	if (!holder || (beside && button)) return {...vnode, props}
	props["data-holder"] = holder.id
	props.class = `${props.class ?? ""} ${beside ? "in-use" : "held"}`
	const words = told(holder)
	if (beside) return {...vnode, props, children: [...vnode.children, used(holder, words)]}
	if (button) return {...vnode, props: {...props, disabled: true, title: `held by ${words.all}`}}
	Object.assign(props, {onclick: null, opens: props.opens && to("tasks", holder.id)})
	const inside = vnode.children.map(child => (child?.tag ? {...child, props: {...child.props, inert: true, "aria-disabled": "true"}} : child))
	return {...vnode, props, children: [...inside, overlay(holder, words, resource.split(".").slice(1).join("."))]}
})

function told({id, task, progress}) {
	const name = task ? routineName(task.routine) : `task ${short(id)}`
	const phase = task?.state === "interrupted" ? `interrupted, waits for ${task.host || "its host"}` : progress?.phase
	const done = percent(progress?.fraction)
	return {name, phase, done, fraction: progress?.fraction, all: [name, phase, done].filter(Boolean).join(", ")}
}

const overlay = ({id, task}, {name, phase, done, fraction, all}, resource) =>
	h("a.overlay", {key: "overlay", class: task?.state, href: to("tasks", id), label: `${resource} is held by ${all}. Open the task.`},
		h("span.tag", h("b.overlay-name", name), h("span.overlay-phase", phase), bar(fraction, name), h("span.overlay-done", done)))

// Several may use it at once: shown, not blocked.
function used({count}, {all, fraction}) {
	const title = `in use by ${all}${count > 1 ? ` and ${count - 1} more` : ""}`
	return h("i.used", {key: "used", title}, bar(fraction, title))
}

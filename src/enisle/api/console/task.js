// One task: where it is, why it waits, what came of it, what it said.

import { redraw, to } from "./app.js";
import { act, ask, drawDialogs, say } from "./dialogs.js";
import { h } from "./dom.js";
import { ago, clockTime, duration, json, line, moment, percent, routineName } from "./format.js";
import { bar, button, code, commandLine, detailHead, doing, empty, facts, field, link, none, problemView, reasons, tabs, taskLink } from "./parts.js";
import { at, call, now } from "./rest.js";
import { ended, store } from "./store.js";
import { resourceLink, took } from "./tasks.js";
import { screen } from "./terminal.js";

const PARTS = { overview, request };

export function task(id, part = "overview") {
  let kept = null; // of the history, when the stream does not tell of it
  let problem = null;
  const output = part === "output" ? outputPart(id) : null;
  if (!store.task.has(id)) call("GET", at`/v1/tasks/${id}`).then((told) => redraw((kept = told)), (refusal) => redraw((problem = refusal)));
  return {
    title: `Task ${id}`,
    line: line("task", output ? "output" : "show", id),
    close: () => output?.close(),
    view() {
      const one = store.task.get(id) ?? kept;
      if (!one) return problem ? [problemView(problem), empty("There is no such task", "History is kept for 30 days.", line("task", "ls"))] : none("Loading…");
      return [
        detailHead("tasks", "Tasks", routineName(one.routine), one.state, null, action(one)),
        tabs(part, ["overview", to("tasks", id)], ["output", to("tasks", id, "output")], ["request", to("tasks", id, "request")]),
        h("section", { key: part }, output ? output.view() : (PARTS[part] ?? overview)(one)),
      ];
    },
  };
}

const action = (one) =>
  ended(one)
    ? button("Retry", { key: "retry", cli: line("task", "retry", one.id), onclick: () => act("Trying again", line("task", "retry", one.id), () => call("POST", at`/v1/tasks/${one.id}/retry`), true) })
    : button("Cancel", { key: "cancel", disabled: Boolean(one.cancel), cli: line("task", "cancel", one.id), onclick: () => cancel(one) });

function cancel({ id, routine }) {
  let why = "";
  const words = () => line("task", "cancel", why && ["--why", why], id);
  ask({
    title: `Cancel ${routineName(routine)}?`, text: "What it did so far is taken back where its routine knows how. What it holds is free at its end.", label: "Cancel the task", danger: true, line: words,
    body: () => field("Why", h("input", { maxlength: 200, autocomplete: "off", autofocus: true, placeholder: "optional; kept in the history", oninput: ({ target }) => drawDialogs((why = target.value)) })),
    run: () => call("POST", at`/v1/tasks/${id}/cancel`, { body: { why } }),
    done: () => say("Cancelling", { line: words() }),
  });
}

function overview(one) {
  return [
    one.blocked && !ended(one) ? waiting(one.blocked) : null,
    ["running", "interrupted"].includes(one.state) ? running(one) : null,
    one.failure ? h("div.callout.bad", reasons(one.failure)) : null,
    one.cancel ? none([ended(one) ? "Cancelled: " : "Being cancelled: ", h("q", one.cancel)]) : null,
    steps(one),
    facts([
      ["Holds", one.resources?.map((resource, i) => [i ? ", " : "", resourceLink(resource), resource.mode === "shared" ? h("small", " shared") : ""])],
      ["Host", one.host && [link(to("hosts", one.host), one.host), one.placement === "pinned" ? h("small", " pinned") : ""]],
      ["Attempt", `${one.attempt} of ${one.attempts}`],
      ["Deadline", one.deadline && `${moment(one.deadline)}${ended(one) ? "" : ` (in ${duration(one.deadline - now())})`}`],
      ["Actor", one.actor],
      ["Id", commandLine(one.id)],
      ["Trace", one.trace && code(one.trace)],
    ]),
    one.state === "done" && one.result !== null ? [h("h2", "Result"), result(one.result)] : null,
  ];
}

const waiting = ({ resource, by, position, since }) =>
  h("div.callout.warn", h("strong", "Waits for ", code(resource)), h("p", by ? ["held by ", taskLink(by), ", "] : null, position > 0 ? `number ${position} in the row, ` : "", `since ${ago(since)}`), by ? doing(by) : null);

function running(one) {
  const progress = store.progressOf(one.id);
  const interrupted = one.state === "interrupted";
  return h("div.callout", { class: interrupted ? "warn" : "" },
    h("p.big-progress", h("strong", interrupted ? `interrupted: it goes on when ${one.host} is back` : progress?.phase || "working"), h("span.number", percent(progress?.fraction)), h("span", Number.isFinite(progress?.left_s) ? `about ${duration(progress.left_s)} left` : "")),
    bar(progress?.fraction, routineName(one.routine)));
}

function steps(one) {
  const again = (attempt) => (attempt > 1 ? `attempt ${attempt}` : "");
  const rows = [
    ["submitted", one.submitted * 1000],
    one.started && ["started", one.started * 1000, again(one.attempt)],
    ...(store.phases.get(one.id) ?? []).map(({ phase, attempt, at: when }) => [phase, when, again(attempt)]),
    one.finished && [one.state, one.finished * 1000, one.started ? `took ${took(one)}` : "never started"],
  ].filter(Boolean);
  return h("ol.steps", { label: "Phases" }, rows.map(([word, when, more], i) => h("li", { class: i === rows.length - 1 && !ended(one) ? "now" : null }, h("time", clockTime(when)), h("b", word), h("small", more))));
}

function result(value) {
  if (typeof value !== "object" || !("stdout" in value)) return h("pre", typeof value === "string" ? value : json(value));
  const { stdout, stderr, ...rest } = value;
  return [facts(Object.entries(rest).map(([key, one]) => [key, String(one)])), stdout ? h("pre", stdout) : null, stderr ? h("pre.bad-text", stderr) : null];
}

function request(one) {
  return [
    facts([["Routine", code(one.routine)], ["Placement", one.placement], ["Attempts", String(one.attempts)], ["Tenant", one.tenant], ["Submitted", moment(one.submitted)]]),
    h("h2", "Arguments"), h("pre", json(one.arguments)), h("h2", "Resources"), h("pre", json(one.resources)),
  ];
}

function outputPart(id) {
  let problem = null;
  let told = null;
  const shown = screen(at`/v1/tasks/${id}/output`, { changed: (answer) => redraw((told = answer)), failed: (refusal) => redraw((problem = refusal)) });
  return {
    close: shown.close,
    view: () => [problem ? problemView(problem) : null, told?.ended && shown.terminal.empty ? none("It said nothing.") : null, h("div", { key: "screen", opaque: true, mount: shown.mount })],
  };
}

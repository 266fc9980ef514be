// Who may come in: the address that `enisle up` prints signs in by itself; elsewhere a token is pasted.

import { redraw } from "./app.js";
import { h } from "./dom.js";
import { commandLine, field, problemView } from "./parts.js";
import { call, token } from "./rest.js";
import { store } from "./store.js";

let problem = null;
let busy = false;

async function enter(event) {
	event.preventDefault();
	token.set(new FormData(event.target).get("token").trim());
	redraw((busy = true));
	try {
		await call("GET", "/v1/sessions");
		problem = null;
		store.retry();
	} catch (refusal) {
		token.set("");
		problem = refusal;
	}
	redraw((busy = false));
}

export const signIn = () =>
	h("form.sign-in", { key: "sign-in", onsubmit: enter },
		h("h1", "Sign in"),
		h("p", "This prints an address that signs in by itself:"), commandLine("enisle up"),
		h("p", "Or make a token and paste it; this tab keeps it until it is closed:"), commandLine("enisle token new --scope admin console"),
		field("Token", h("input.mono", { name: "token", type: "password", required: true, autocomplete: "off" })),
		problem ? problemView(problem) : null,
		h("div.answers", h("button.primary", { type: "submit", disabled: busy }, "Sign in")));

"""The table of the API: every operation, its scope, what it takes and gives. `/v1` but for the platform's own pages."""

from starlette.types import ASGIApp

from enisle.api import (
    forms,
    on_audit,
    on_calls,
    on_hosts,
    on_input,
    on_islands,
    on_tasks,
    on_tokens,
    on_vms,
    outputs,
    schemas,
)
from enisle.api.events import Events, read_position
from enisle.api.sse import EventStream, with_heartbeats
from enisle.api.table import OPEN, Call, Line

STREAM = ("text/event-stream",)
READ, WRITE, ADMIN, JOIN = "read", "write", "admin", "join"


async def events(call: Call) -> ASGIApp:
    given = call.request.headers.get("last-event-id", "") or call.query.since
    since, reset = read_position(call.services.view, given)
    told = Events(call.services, call.principal.tenant, since, reset)
    return EventStream(call.services, with_heartbeats(told.stream()))


TASKS = (
    Line("POST", "/v1/tasks", on_tasks.submit, "Submit a task", WRITE, schemas.Task, 202, body=forms.TaskRequest, keyed=True, problems=(404, 409, 429)),
    Line("GET", "/v1/tasks", on_tasks.index, "List tasks, newest first", READ, schemas.TaskPage, query=forms.TaskFilter),
    Line("GET", "/v1/tasks/{task}", on_tasks.show, "Show a task; may wait for its end", READ, schemas.Task, query=forms.Wait, problems=(404,)),
    Line("POST", "/v1/tasks/{task}/cancel", on_tasks.cancel, "Ask for the end of a task", WRITE, schemas.Task, 202, body=forms.Why, problems=(404, 409), anywhere=True),
    Line("POST", "/v1/tasks/{task}/retry", on_tasks.retry, "Submit an ended task again", WRITE, schemas.Task, 202, body=forms.Nothing, problems=(404, 409)),
    Line("GET", "/v1/tasks/{task}/result", on_tasks.result, "What a task returned, whole", READ, schemas.Whole, problems=(404, 409)),
    Line("GET", "/v1/tasks/{task}/output", outputs.of_task, "Output of a task's command", READ, schemas.Output, query=forms.OutputQuery, also=STREAM, problems=(404, 409)),
    Line("POST", "/v1/tasks/{task}/input", on_input.take, "Type into a command that runs", WRITE, schemas.Taken, query=forms.Input, body=bytes, problems=(404, 409)),
    Line("POST", "/v1/tasks/{task}/terminal", on_input.resize, "Change the size of a command's terminal", WRITE, None, 204, body=forms.TerminalSize, problems=(404, 409)),
    Line("GET", "/v1/routines", on_tasks.routines, "What can be run", READ, schemas.RoutineList),
    Line("GET", "/v1/resources", on_tasks.resources, "Resources in use, and who waits for them", READ, schemas.ResourceList),
    Line("POST", "/v1/resources/{kind}/{id}/unlock", on_tasks.unlock, "Unlock a resource, as an operator", ADMIN, schemas.Freed, body=forms.Reason, problems=(404, 409), anywhere=True),
)  # fmt: skip

CALLS = (
    Line("POST", "/v1/calls", on_calls.submit, "Run a short program on whichever host is free", WRITE, schemas.Called, query=forms.CallWait, body=forms.CallRequest, keyed=True, later=True),
    Line("GET", "/v1/calls/{call}", on_calls.show, "What became of a call; may wait for its end", READ, schemas.Called, query=forms.Wait, problems=(404,)),
)  # fmt: skip

ISLANDS = (
    Line("POST", "/v1/islands", on_islands.create, "Make an island", WRITE, schemas.Task, 202, body=forms.IslandRequest, keyed=True, problems=(404, 409, 429)),
    Line("GET", "/v1/islands", on_islands.index, "List islands", READ, schemas.Islands, query=forms.ThingFilter),
    Line("GET", "/v1/islands/{name}", on_islands.show, "Show an island", READ, schemas.Island, problems=(404,)),
    Line("DELETE", "/v1/islands/{name}", on_islands.remove, "Remove an island", WRITE, schemas.Task, 202, query=forms.Force, keyed=True, problems=(404, 409)),
    Line("POST", "/v1/islands/{name}/exec", on_islands.run, "Run a command in an island", WRITE, schemas.Task, 202, body=forms.ExecRequest, keyed=True, problems=(404, 409, 429)),
    Line("POST", "/v1/islands/{name}/start", on_islands.start, "Start a stopped island", WRITE, schemas.Task, 202, body=forms.How, keyed=True, problems=(404, 409)),
    Line("POST", "/v1/islands/{name}/stop", on_islands.stop, "Stop an island", WRITE, schemas.Task, 202, body=forms.How, keyed=True, problems=(404, 409)),
    Line("GET", "/v1/islands/{name}/logs", outputs.of_island, "Output of an island's program", READ, schemas.Output, query=forms.OutputQuery, also=STREAM, problems=(404, 409)),
    Line("GET", "/v1/islands/{name}/files", on_islands.read_file, "Read a file", READ, bytes, query=forms.FileQuery, problems=(404, 409)),
    Line("PUT", "/v1/islands/{name}/files", on_islands.write_file, "Write a file", WRITE, schemas.Task, 202, query=forms.FileWrite, body=bytes, keyed=True, problems=(404, 409)),
    Line("GET", "/v1/islands/{name}/listing", on_islands.listing, "List a directory", READ, schemas.Things, query=forms.FileQuery, problems=(404, 409)),
    Line("GET", "/v1/islands/{name}/processes", on_islands.processes, "Processes of an island", READ, schemas.Things, problems=(404, 409)),
    Line("GET", "/v1/islands/{name}/statistics", on_islands.statistics, "Counters of an island", READ, schemas.Thing, problems=(404, 409)),
)  # fmt: skip

VMS = (
    Line("POST", "/v1/vms", on_vms.run, "Run a machine", WRITE, schemas.Task, 202, body=forms.VmRequest, keyed=True, problems=(404, 409, 429)),
    Line("GET", "/v1/vms", on_vms.index, "List machines", READ, schemas.Vms, query=forms.ThingFilter),
    Line("GET", "/v1/vms/{name}", on_vms.show, "Show a machine", READ, schemas.Vm, problems=(404,)),
    Line("DELETE", "/v1/vms/{name}", on_vms.remove, "Remove a machine", WRITE, schemas.Task, 202, query=forms.Force, keyed=True, problems=(404, 409)),
    Line("POST", "/v1/vms/{name}/stop", on_vms.stop, "Stop a machine", WRITE, schemas.Task, 202, body=forms.StopVm, keyed=True, problems=(404, 409)),
    Line("POST", "/v1/vms/{name}/pause", on_vms.pause, "Pause a machine", WRITE, schemas.Task, 202, body=forms.Nothing, keyed=True, problems=(404, 409)),
    Line("POST", "/v1/vms/{name}/resume", on_vms.resume, "Let a machine go on", WRITE, schemas.Task, 202, body=forms.Nothing, keyed=True, problems=(404, 409)),
    Line("POST", "/v1/vms/{name}/introspect", on_vms.introspect, "Look into a machine's guest", WRITE, schemas.Task, 202, body=forms.Look, keyed=True, problems=(404, 409)),
)  # fmt: skip

PLATFORM = (
    Line("GET", "/v1/hosts", on_hosts.index, "List hosts", READ, schemas.Hosts),
    Line("GET", "/v1/hosts/{name}", on_hosts.show, "Show a host", READ, schemas.Host, problems=(404,)),
    Line("POST", "/v1/hosts", on_hosts.join, "Let a host join", JOIN, schemas.Joined, 201, body=forms.HostRequest, problems=(409,)),
    Line("POST", "/v1/hosts/{name}/declare-dead", on_hosts.declare_dead, "Give up a host, as an operator", ADMIN, schemas.Given, body=forms.Reason, problems=(404, 409)),
    Line("POST", "/v1/hosts/{name}/drain", on_hosts.drain, "Give a host no new work", ADMIN, schemas.Host, body=forms.Reason, problems=(404, 409)),
    Line("POST", "/v1/hosts/{name}/undrain", on_hosts.undrain, "Give a host work again", ADMIN, schemas.Host, body=forms.Reason, problems=(404, 409)),
    Line("DELETE", "/v1/hosts/{name}", on_hosts.remove, "Forget a host, and take its key away", ADMIN, None, 204, problems=(404, 409)),
    Line("GET", "/v1/audit", on_audit.index, "Who did what, the latest first", ADMIN, schemas.Acts, query=forms.AuditFilter),
    Line("GET", "/v1/version", on_hosts.version, "What the platform is", READ, schemas.Version),
    Line("GET", "/v1/tokens", on_tokens.index, "List tokens", ADMIN, schemas.TokenList),
    Line("POST", "/v1/tokens", on_tokens.create, "Make a token; its secret is shown once", ADMIN, schemas.TokenEntry, 201, body=forms.TokenRequest),
    Line("DELETE", "/v1/tokens/{token}", on_tokens.revoke, "Revoke a token", ADMIN, None, 204, problems=(404,)),
    Line("POST", "/v1/sessions", on_tokens.sign_in, "Sign in with a one-time code", OPEN, schemas.Session, 201, body=forms.SignIn),
    Line("GET", "/v1/sessions", on_tokens.who, "Who is signed in", READ, schemas.Session),
    Line("DELETE", "/v1/sessions", on_tokens.sign_out, "Sign out", READ, None, 204),
    Line("GET", "/v1/events", events, "What is, and what changes", READ, str, query=forms.EventQuery, also=STREAM),
    Line("GET", "/metrics", on_hosts.metrics, "Figures for Prometheus", READ, str, also=("text/plain",)),
    Line("GET", "/healthz", on_hosts.health, "Whether the platform works", OPEN, schemas.Health),
)  # fmt: skip

LINES = (*TASKS, *CALLS, *ISLANDS, *VMS, *PLATFORM)

"""Handlers: what is typed into a command that runs, and the size of its terminal.

These change no record and are no tasks: they go to the command's host as questions, thirty times a second where
somebody types. What is typed is not written down anywhere.
"""

from enisle.api import forms
from enisle.api.decode import read_body
from enisle.api.on_tasks import find
from enisle.api.shapes import is_of
from enisle.api.table import Answer, Call

MAX_INPUT = 64 << 10


async def glance(call: Call) -> str:
    """Return the id of the caller's task in the path; one in sight costs no look at the store. Raises NotFound."""
    identity = call.path["task"]
    seen = call.services.view.tasks.get(identity)
    return identity if seen and is_of(seen, call.principal.tenant) else (await find(call, identity)).id


async def take(call: Call) -> Answer:
    asked: forms.Input = call.query
    content = await read_body(call.request, MAX_INPUT)
    operations = call.services.operations
    return Answer(await operations.task_input(await glance(call), asked.writer, asked.offset, content, asked.end))


async def resize(call: Call) -> Answer:
    size: forms.TerminalSize = call.body
    await call.services.operations.resize_terminal(await glance(call), size.rows, size.columns)
    return Answer(None, 204)

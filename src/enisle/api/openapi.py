"""The description of the API (OpenAPI 3.1), made from the table that also makes the router."""

import re
from functools import cache
from typing import Any

import msgspec

import enisle
from enisle.api import forms, schemas
from enisle.api.lines import LINES
from enisle.api.problems import MEDIA_TYPE
from enisle.api.table import OPEN, Line

REFERENCE = "#/components/schemas/{name}"
MEANINGS = {
    400: "The request cannot work",
    401: "No valid token",
    403: "The token's scope does not reach",
    404: "No such thing, or another tenant's",
    409: "Not in its present state; a blocked resource names its holder and the holder's progress",
    413: "The body is too large",
    415: "The body is of another media type",
    422: "Not as described here, or the idempotency key is taken",
    429: "Too much at once",
    500: "A defect of Enisle",
    503: "The platform cannot do this now",
}
NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"


@cache
def description() -> dict[str, Any]:
    """Return the document."""
    structures = [kind for line in LINES for kind in (line.body, line.answer) if _is_structure(kind)]
    _, components = msgspec.json.schema_components([*structures, schemas.Problem], ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for line in LINES:
        paths.setdefault(line.path, {})[line.method.lower()] = _operation(line)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Enisle",
            "version": enisle.__version__,
            "description": "Islands, machines, hosts, and the tasks that change them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {str(status): _problem(status) for status in MEANINGS},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "enisle"},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


def _is_structure(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _operation(line: Line) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": operation_name(line),
        "summary": line.summary,
        "tags": [line.path.split("/")[2] if line.path.startswith("/v1/") else "platform"],
        "parameters": [*_path_parameters(line), *_query_parameters(line), *_header_parameters(line)],
        "responses": _answers(line),
    }
    if line.body is bytes:
        told["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    elif line.body is not None and issubclass(line.body, forms.Asked):
        needed = any(field.required for field in msgspec.structs.fields(line.body))
        content = {"application/json": {"schema": {"$ref": REFERENCE.format(name=line.body.__name__)}}}
        told["requestBody"] = {"required": needed, "content": content}
    if line.scope == OPEN:
        told["security"] = []
    else:
        told["description"] = f"Needs the scope `{line.scope}`."
    return told


def operation_name(line: Line) -> str:
    """Return a name such as `post_islands_name_exec`: stable, and unique as method and path are."""
    return re.sub(r"[^a-z0-9]+", "_", f"{line.method} {line.path.removeprefix('/v1')}".lower()).strip("_")


def _path_parameters(line: Line) -> list[dict[str, Any]]:
    schema = {"type": "string", "pattern": NAME_PATTERN}
    names = re.findall(r"{(\w+)}", line.path)
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query_parameters(line: Line) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for field in (field for kind in (line.query, *line.further) for field in msgspec.structs.fields(kind)):
        schema = msgspec.json.schema(field.type)
        if not field.required and field.default is not msgspec.NODEFAULT:
            schema["default"] = field.default
        told.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    return told


def _header_parameters(line: Line) -> list[dict[str, Any]]:
    if not line.keyed:
        return []
    return [
        {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 200}}
    ]


def _answers(line: Line) -> dict[str, Any]:
    told: dict[str, Any] = {str(line.status): _answer(line)}
    if line.path == "/healthz":
        return told | {"503": _answer(line) | {"description": "It does not, and why"}}
    if line.later:
        told["202"] = _answer(line) | {"description": "Accepted, and not over: ask again at its Location"}
    statuses = {400, 422, 500, 503, *line.problems}
    if line.scope != OPEN:
        statuses |= {401, 403}
    else:
        statuses |= {401, 403, 429}
    if line.scope != OPEN:
        statuses |= {429}
    if line.body is not None:
        statuses |= {413, 415} if line.body is not bytes else {413}
    return told | {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}


def _answer(line: Line) -> dict[str, Any]:
    told: dict[str, Any] = {"description": line.summary}
    if line.answer is None:
        return told
    content: dict[str, Any] = {}
    if line.answer is bytes:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    elif _is_structure(line.answer):
        content["application/json"] = {"schema": {"$ref": REFERENCE.format(name=line.answer.__name__)}}
    elif line.answer is not str:
        content["application/json"] = {"schema": {"type": "object"}}
    content |= {media: {"schema": {"type": "string"}} for media in line.also}
    told["content"] = content
    if line.status in (201, 202) and line.answer in (schemas.Task, schemas.TokenEntry):
        told["headers"] = {"Location": {"schema": {"type": "string"}}}
    return told


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(name="Problem")}
    return {"description": MEANINGS[status], "content": {MEDIA_TYPE: {"schema": schema}}}

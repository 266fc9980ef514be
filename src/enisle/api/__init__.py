"""The room at the platform's door: the REST API with its event stream, its Python client and the web console.

Alone owns starlette, uvicorn, httpx and msgspec. Imports `control` and below. Promises: every operation is a task,
every error says what to do, and what a page shows is what the platform knows. Names are loaded when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.api.codes import sign_in_code as sign_in_code
    from enisle.api.contexts import changed_contexts as changed_contexts
    from enisle.api.contexts import contexts_file as contexts_file
    from enisle.api.contexts import find_context as find_context
    from enisle.api.contexts import load_contexts as load_contexts
    from enisle.api.contexts import require_context_name as require_context_name
    from enisle.api.contexts import use_context as use_context
    from enisle.api.tokens import local_token as local_token

PLACES = {
    "changed_contexts": "contexts",
    "contexts_file": "contexts",
    "find_context": "contexts",
    "load_contexts": "contexts",
    "require_context_name": "contexts",
    "use_context": "contexts",
    "local_token": "tokens",
    "sign_in_code": "codes",
}

__all__ = [
    "changed_contexts",
    "contexts_file",
    "find_context",
    "load_contexts",
    "local_token",
    "require_context_name",
    "sign_in_code",
    "use_context",
]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"enisle.api.{PLACES[name]}"), name)

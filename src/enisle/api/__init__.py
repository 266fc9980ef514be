"""The room at the platform's door: the REST API with its event stream, its Python client and the web console.

Alone owns starlette, uvicorn, httpx and msgspec. Imports `control` and below. Promises: every operation is a task,
every error says what to do, and what a page shows is what the platform knows. Names are loaded when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.api.client import Platform as Platform
    from enisle.api.client_async import AsyncPlatform as AsyncPlatform
    from enisle.api.client_async_islands import AsyncPlatformIsland as AsyncPlatformIsland
    from enisle.api.client_islands import PlatformIsland as PlatformIsland
    from enisle.api.codes import sign_in_code as sign_in_code
    from enisle.api.contexts import changed_contexts as changed_contexts
    from enisle.api.contexts import contexts_file as contexts_file
    from enisle.api.contexts import find_context as find_context
    from enisle.api.contexts import load_contexts as load_contexts
    from enisle.api.contexts import require_context_name as require_context_name
    from enisle.api.contexts import use_context as use_context
    from enisle.api.paths import within as within
    from enisle.api.results import CallFailed as CallFailed
    from enisle.api.results import Event as Event
    from enisle.api.results import Result as Result
    from enisle.api.results import TaskFailed as TaskFailed
    from enisle.api.tokens import local_token as local_token

_MODULES = {
    "AsyncPlatform": "client_async",
    "AsyncPlatformIsland": "client_async_islands",
    "CallFailed": "results",
    "Event": "results",
    "Platform": "client",
    "PlatformIsland": "client_islands",
    "Result": "results",
    "TaskFailed": "results",
    "changed_contexts": "contexts",
    "contexts_file": "contexts",
    "find_context": "contexts",
    "load_contexts": "contexts",
    "local_token": "tokens",
    "require_context_name": "contexts",
    "sign_in_code": "codes",
    "use_context": "contexts",
    "within": "paths",
}
__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]  # the same names, told once


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"enisle.api.{_MODULES[name]}"), name)

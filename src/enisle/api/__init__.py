"""The room at the platform's door: the REST API with its event stream, its Python client and the web console.

Alone owns starlette, uvicorn, httpx and msgspec. Imports `control` and below. Promises: every operation is a task,
every error says what to do, and what a page shows is what the platform knows. Names are loaded when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.api.codes import sign_in_code as sign_in_code
    from enisle.api.tokens import local_token as local_token

PLACES = {
    "local_token": "tokens",
    "sign_in_code": "codes",
}

__all__ = ["local_token", "sign_in_code"]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"enisle.api.{PLACES[name]}"), name)

"""The room at the platform's door: the REST API with its event stream, its Python client and the web console.

Alone owns starlette, uvicorn, httpx and msgspec. Imports `control` and below. Promises: every operation is a task,
every error says what to do, and what a page shows is what the platform knows.
"""

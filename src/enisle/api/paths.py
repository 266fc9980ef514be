"""Which addresses of the API belong to tenants: what its table and those who ask it agree on. Cheap to import."""

from collections.abc import Mapping
from typing import Any

TENANTS = ("/v1/tasks", "/v1/calls", "/v1/islands", "/v1/vms", "/v1/resources", "/v1/events")
"""There an administrator may name a tenant, or look at every one's."""
CHOSEN = "/v1/audit"
"""There a tenant chooses what is shown; without one it is all of them."""


def within(tenant: str, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
    """Return a query that is of a tenant, where that can be said; an empty one says nothing."""
    named = tenant and path.startswith((*TENANTS, CHOSEN))
    return {**query, "tenant": tenant} if named and "tenant" not in query else dict(query)

"""The memory part of `enisle top`: what lies where, the copies of page tables, and whose tables were walked."""

import sys
from typing import Any

from enisle.cli.output import plain, size, table

HEAD = ("NODE", "MEMORY", "TABLES", "TABLE MEMORY", "BOUND")


def memory_lines(name: str, counted: dict[str, Any]) -> str:
    """Return the lines for one island's statistics."""
    lines = [
        f"\n{name}: {size(counted['memory_used'])} of {size(counted['memory_limit'])} used, "
        f"{size(counted['memory_window'])} of files mapped, {counted['page_tables']} page tables, "
        f"{counted['flushes']} flushes\n"
    ]
    replication, walks = counted.get("replication"), counted.get("walks")
    if replication:
        lines += _replication(replication)
    else:
        lines.append("one node; no copies of page tables\n")
    if walks:
        lines += _walks(walks)
    return "".join(lines)


def _replication(now: dict[str, Any]) -> list[str]:
    rows = [
        (
            str(node),
            size(now["node_memory_bytes"][node]),
            str(now["node_tables"][node]),
            size(now["node_table_bytes"][node]),
            "host node" if now["bound_nodes"] >> node & 1 else "virtual",
        )
        for node in range(now["nodes"])
    ]
    facts = (
        f"copies: mode {plain(now['mode'])}; {now['tables']} tables, {now['replicas']} copies; "
        f"{now['writes']} entries written, {now['ring_hops']} ring hops, {now['flushes']} flushes\n",
        f"        {now['fills']} lazy fills, {now['shootdowns']} shootdowns, {now['spared']} spared; "
        f"{now['toggles']} toggles, {now['migrations']} migrations; {now['fallbacks']} tables on a foreign node, "
        f"{now['repairs']} brought home, {now['refused']} refused\n",
    )
    seen = now["remote_walks"]
    looked = [] if seen is None else [f"        at least {seen:,.0f} remote walks/s: an estimate from accessed bits\n"]
    return [table(HEAD, rows, sys.stdout.isatty()), *facts, *looked]


def _walks(walks: dict[str, Any]) -> list[str]:
    local, remote = walks["local"], walks["remote"]
    if not local + remote:
        return ["walks:  none counted yet\n"]
    share, (near, far) = remote / (local + remote), walks["model"]
    cycles = local * near + remote * far
    return [
        f"walks:  {walks['walks']} counted on emulated processors; reads of tables {local} local, {remote} remote "
        f"({share:.1%}), {walks['leaf_remote']} remote in lowest tables\n",
        f"        estimate, not a measurement: {cycles:,} cycles, if a local read takes {near}, a remote {far}\n",
    ]

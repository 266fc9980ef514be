"""Memory policies (set_mempolicy(2), include/uapi/linux/mempolicy.h): numbers, and the host's own mbind(2)."""

from ctypes import byref, c_int, c_ulong, c_void_p

from enisle.abi import host

MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED_MANY = range(6)
MPOL_F_NUMA_BALANCING, MPOL_F_RELATIVE_NODES, MPOL_F_STATIC_NODES = 1 << 13, 1 << 14, 1 << 15
MPOL_MODE_FLAGS = MPOL_F_NUMA_BALANCING | MPOL_F_RELATIVE_NODES | MPOL_F_STATIC_NODES
MPOL_F_NODE, MPOL_F_ADDR, MPOL_F_MEMS_ALLOWED = 1, 2, 4
MPOL_MF_STRICT, MPOL_MF_MOVE, MPOL_MF_MOVE_ALL = 1, 2, 4
NODE_BITS = 64

_mbind = host.system_call(237, "mbind", c_void_p, c_ulong, c_int, c_void_p, c_ulong, c_int)


def bind(address: int, size: int, mask: int) -> None:
    """Let pages of a range of this process come from the nodes of `mask` alone. Raises OSError."""
    nodes = c_ulong(mask)
    _mbind(address, size, MPOL_BIND, byref(nodes), NODE_BITS + 1, 0)

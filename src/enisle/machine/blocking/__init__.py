"""Function blocking, the value side: what a virtual processor permits, and what it therefore answers when asked.

`value.BlockingValue` says which functions are permitted; `query.Queries` derives every answer (CPUID, XCR0, AT_HWCAP,
/proc/cpuinfo) from value and processor; `enforcement` makes it true. Imported only when a machine has a value.
"""

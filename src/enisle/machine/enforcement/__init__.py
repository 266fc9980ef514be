"""Function blocking, the enforcing side: what makes a blocking value true for programs in ring 3.

`matrix` tries every control of this host, `tiers` chooses how each function is kept; `scan` and `pages` let only
looked-at pages execute, `guard` serves traps and steps, `audit` watches vector state, `hardware` sets the controls that
work. Imported only when a machine has a value.
"""

"""/proc, made by us: `parts` is what it consists of, `root` its first directory, `texts` the files of a process.

proc(5); everything here is read on the island's side and nothing of the host's is shown but what `host` lets through.
"""

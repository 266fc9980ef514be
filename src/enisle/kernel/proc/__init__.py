"""/proc, made by us (proc(5)): `parts` is what it consists of, `root` its first directory, `texts` a process's files."""

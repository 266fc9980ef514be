"""/proc, made by us (proc(5)): `parts`: what it consists of, `root`: its first directory, `texts`: shows processes."""

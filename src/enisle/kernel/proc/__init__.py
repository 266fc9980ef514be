"""/proc, made by us (proc(5)): `parts` says what it consists of, `root` is its first directory, `texts` shows processes."""

"""/proc, made by us: `parts` says what it consists of, `root` is its first directory, `texts` are the files of a process (proc(5))."""

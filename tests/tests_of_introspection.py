"""A program for the guest that does known things a known number of times."""

import functools
import subprocess
import tempfile
from pathlib import Path

SOURCE = """
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int count = atoi(argv[2]);
    if (!strcmp(argv[1], "access")) while (count--) access("/init", R_OK);
    if (!strcmp(argv[1], "chown")) while (count--) chown("/init", 0, 0);
    if (!strcmp(argv[1], "semop")) {
        int id = semget(IPC_PRIVATE, 1, 0600);
        struct sembuf up = {0, 1, 0};
        while (count--) semop(id, &up, 1);
    }
    return 0;
}
"""
ACTIONS = {
    "do_faccessat": ("actions access 7", 7),
    "do_fchownat": ("actions chown 5", 5),
    "do_semtimedop": ("actions semop 3", 3),
}
"""An internal function: (what makes it run, how often)."""


@functools.cache
def actions() -> bytes:
    """Return the program, linked statically."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "actions.c")
        source.write_text(SOURCE)
        program = source.with_suffix("")
        subprocess.run(["gcc", "-O1", "-static", "-o", str(program), str(source)], check=True)
        return program.read_bytes()

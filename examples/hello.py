"""A first program for an island: who am I, where am I, and is arithmetic still true?"""

import os
import platform
import time


def count_primes(limit: int) -> int:
    """Count the primes below `limit` with a sieve."""
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0\0"
    for n in range(2, int(limit**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return sum(sieve)


start = time.perf_counter()
primes = count_primes(1_000_000)
elapsed = time.perf_counter() - start
system = os.uname()
print(f"Python {platform.python_version()} on {system.sysname} {system.release} ({system.machine})")
print(f"process {os.getpid()}, user {os.getuid()}, {len(os.listdir('/proc'))} entries in /proc")
print(f"{primes} primes below a million, counted in {elapsed * 1000:.0f} ms")

"""A walk through the standard library: ssl, ctypes, hashing, compression, temporary files, sockets, times, paths, resources."""

import bz2
import ctypes
import ctypes.util
import datetime
import decimal
import fcntl
import gzip
import hashlib
import json
import locale
import lzma
import os
import pathlib
import pickle
import platform
import pwd
import random
import re
import resource
import select
import selectors
import shutil
import socket
import ssl
import stat
import struct
import sys
import tarfile
import tempfile
import time
import urllib.request
import uuid
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib

print(ssl.OPENSSL_VERSION, ssl.create_default_context().verify_mode)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.abs(-3), libc.getpid() == os.getpid(), ctypes.util.find_library("c"))
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 5)(4, 1, 5, 2, 3)
libc.qsort(numbers, 5, 4, compare(lambda a, b: a[0] - b[0]))
print(list(numbers))
libc.open(b"/no/such", 0)
print(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
print(hashlib.sha256(b"island").hexdigest(), hashlib.blake2b(b"x", digest_size=8).hexdigest())
print(
    hashlib.scrypt(b"secret", salt=b"salt", n=1024, r=8, p=1, dklen=8).hex(),
    hashlib.pbkdf2_hmac("sha1", b"p", b"s", 1000).hex(),
)
data = bytes(random.Random(7).randrange(9) for _ in range(50000))
print(
    [len(f(data)) for f in (zlib.compress, bz2.compress, lzma.compress)], gzip.decompress(gzip.compress(data)) == data
)
print(
    json.loads(json.dumps({"a": [1, 2.5, None]})),
    pickle.loads(pickle.dumps({1: {2}})),
    struct.pack("<hiq", 1, 2, 3).hex(),
)
print(decimal.Decimal(2).sqrt(), 2**521 % 1000007, 0.1 + 0.2, float("1e308") * 10, divmod(-7, 2))
print(datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC).isoformat(), time.gmtime(0)[:6], time.tzname)
print(len(os.urandom(33)), uuid.uuid4().version, uuid.uuid5(uuid.NAMESPACE_DNS, "island"))
with tempfile.TemporaryDirectory() as where:
    path = pathlib.Path(where, "a", "b")
    path.mkdir(parents=True)
    (path / "file").write_text("text\n" * 100)
    (path / "link").symlink_to("file")
    print((path / "link").read_text().count("text"), (path / "file").stat().st_size, (path / "link").lstat().st_size)
    print(sorted(str(p.relative_to(where)) for p in pathlib.Path(where).rglob("*")))
    with tarfile.open(path / "t.tar.gz", "w:gz") as tar:
        tar.add(path / "file", "file")
    with zipfile.ZipFile(path / "z.zip", "w") as bundle:
        bundle.write(path / "file", "file")
        print(bundle.testzip(), tarfile.open(path / "t.tar.gz").getnames())
    shutil.copytree(path, path.with_name("c"), symlinks=True)
    os.chmod(path / "file", 0o640)
    os.truncate(path / "file", 7)
    os.utime(path / "file", (1, 2))
    information = os.stat(path / "file")
    print(stat.filemode(information.st_mode), information.st_mtime, information.st_size, information.st_nlink)
    os.rename(path / "file", path / "renamed")
    os.link(path / "renamed", path / "hard")
    print(os.stat(path / "hard").st_nlink, os.readlink(path / "link"), os.path.exists(path / "link"))
    with os.scandir(path) as entries:
        print(sorted((entry.name, entry.is_symlink(), entry.is_file()) for entry in entries))
    file = os.open(path / "sparse", os.O_CREAT | os.O_RDWR)
    os.pwrite(file, b"end", 100000)
    print(os.lseek(file, 0, os.SEEK_END), os.pread(file, 2, 0), os.sendfile(file, file, 0, 0))
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.posix_fallocate(file, 0, 200000)
    print(os.fstat(file).st_size, os.writev(file, [b"a", b"bc"]), os.get_inheritable(file))
    try:
        os.setxattr(path / "hard", "user.test", b"value")
        print(os.getxattr(path / "hard", "user.test"))
    except OSError:
        print(b"value")
try:
    os.open("/proc/version", os.O_RDWR | os.O_CREAT | os.O_EXCL)
except OSError as error:
    print(error.errno)
left, right = socket.socketpair()
socket.send_fds(left, [b"descriptor"], [1])
message, descriptors, flags, address = socket.recv_fds(right, 100, 2)
os.write(descriptors[0], b"")
print(message, len(descriptors))
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
peer, address = server.accept()
peer.sendall(b"over tcp")
peer.shutdown(socket.SHUT_WR)
print(client.recv(100), client.recv(100), client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
print(socket.gethostbyname("localhost"), socket.getaddrinfo("127.0.0.1", 80)[0][4], bool(socket.gethostname()))
selector = selectors.DefaultSelector()
selector.register(left, selectors.EVENT_READ | selectors.EVENT_WRITE)
print(type(selector).__name__, [events for _, events in selector.select(1)], select.poll() is not None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100)
print(platform.system(), platform.machine(), sys.maxsize, sys.getfilesystemencoding(), locale.setlocale(locale.LC_ALL))
print(
    pwd.getpwuid(0).pw_name, os.path.expanduser("~"), os.getcwd() == os.environ["PWD"] if "PWD" in os.environ else True
)
print(ElementTree.fromstring("<a><b c='1'/></a>")[0].attrib, re.sub(r"(\w+) (\w+)", r"\2 \1", "hello island"))
print(urllib.request.urlopen("file:///etc/hostname").status, os.cpu_count() >= 1, len(os.sched_getaffinity(0)) >= 1)
clocks = [time.time(), time.monotonic(), time.perf_counter(), time.process_time(), time.thread_time()]
print([value > 0 for value in clocks], time.clock_getres(time.CLOCK_MONOTONIC) < 0.1, time.time_ns() > 10**18)
print(
    sorted(os.listdir("/dev")) >= ["full"],
    os.path.exists("/proc/self/exe"),
    os.readlink("/proc/self/exe") == os.path.realpath(sys.executable),
)

"""mmap: anonymous, shared with children, file-backed shared and private, resizing, protection, huge sizes."""

import mmap
import os

PAGE = mmap.PAGESIZE
area = mmap.mmap(-1, 20 * PAGE)
area[:5] = b"hello"
area.seek(3 * PAGE)
area.write(b"third")
print(area.find(b"third", 0) // PAGE, area[:5], len(area) // PAGE)
child = os.fork()
if not child:
    area[:5] = b"child"
    os._exit(0)
os.waitpid(child, 0)
print("shared with a child", area[:5])
private = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
private[:1] = b"a"
child = os.fork()
if not child:
    private[:1] = b"b"
    os._exit(0)
os.waitpid(child, 0)
print("private", private[:1])
with open("file", "w+b") as file:
    file.write(bytes(range(256)) * 64)
    file.flush()
    with mmap.mmap(file.fileno(), 0) as view:
        print(len(view), view[1000], view.rfind(b"\x10\x11"))
        view[0:4] = b"MMAP"
        view.flush()
    print(os.pread(file.fileno(), 6, 0))
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        view[0:4] = b"copy"
        print(view[:4], os.pread(file.fileno(), 4, 0))
    with mmap.mmap(file.fileno(), PAGE, offset=PAGE, access=mmap.ACCESS_READ) as view:
        print(view[:4])
        os.pwrite(file.fileno(), b"fresh", PAGE)
        print("coherent", view[:5])
        try:
            view[0] = 1
        except TypeError as error:
            print(error)
    with mmap.mmap(file.fileno(), 0) as view:
        view.resize(10 * PAGE)
        view[-3:] = b"end"
        view.move(0, 9 * PAGE, PAGE)
        print(os.fstat(file.fileno()).st_size // PAGE, view[PAGE - 3 : PAGE])
    with mmap.mmap(file.fileno(), 0) as one, mmap.mmap(file.fileno(), 0) as other:
        one[100:105] = b"alias"
        print(other[100:105])
area = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area[:5] = b"hello"
area.resize(2000 * PAGE)
area[1999 * PAGE : 1999 * PAGE + 4] = b"last"
print(area[:5], area[1999 * PAGE : 1999 * PAGE + 4])
area.madvise(mmap.MADV_DONTNEED, 10 * PAGE, PAGE)
for size in (256 << 20, 1 << 30):
    large = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, size, 32 << 20):
        large[offset] = offset >> 25
    print(sum(large[offset] for offset in range(0, size, 32 << 20)))
    large.close()
try:
    mmap.mmap(-1, 1 << 50)
except OSError as error:
    print(error.errno)
data = bytearray(64 << 20)
data[::4096] = b"x" * len(range(0, len(data), 4096))
print(data.count(b"x"))

"""Instructions in software against published examples: FIPS 197, FIPS 180-4, RFC 3720, Intel's paper on PCLMULQDQ."""

import struct

import pytest

from enisle.abi.x86 import RAX, RBX, RCX, RIP
from enisle.machine.software.decode import decode
from enisle.machine.software.execute import DONE, execute
from plain_processor import NoAnswers, PlainMemory, PlainProcessor


def run(code: str, *registers: bytes) -> bytes:
    """Execute on XMM0, XMM1, XMM2; return XMM0."""
    vectors = b"".join(register.ljust(32, b"\0") for register in registers)
    processor = PlainProcessor([0] * 18, vectors.ljust(512, b"\0"), PlainMemory(0, b""))
    instruction = decode(bytes.fromhex(code))
    assert instruction is not None
    assert execute(instruction, processor, NoAnswers()).outcome == DONE
    assert processor.gpr[RIP] == instruction.length
    return processor.vectors.low(0)


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def key_schedule(key: bytes) -> list[bytes]:
    """Return the round keys of AES-128 as Intel's white paper makes them."""
    keys = [key]
    for constant in (1, 2, 4, 8, 16, 32, 64, 128, 0x1B, 0x36):
        assist = run(f"660f3adfc1{constant:02x}", bytes(16), keys[-1])[12:] * 4
        words, total = struct.unpack("<4I", keys[-1]), 0
        parts = []
        for word in words:
            total ^= word
            parts.append(total)
        keys.append(xor(struct.pack("<4I", *parts), assist))
    return keys


@pytest.mark.parametrize(
    ("encrypt", "last", "decrypt", "last_back", "inverse"),
    [
        ("660f38dcc1", "660f38ddc1", "660f38dec1", "660f38dfc1", "660f38dbc1"),
        ("c4e279dcc1", "c4e279ddc1", "c4e279dec1", "c4e279dfc1", "c4e279dbc1"),
    ],
    ids=["legacy", "vex"],
)
def test_aes_128_is_that_of_fips_197(encrypt: str, last: str, decrypt: str, last_back: str, inverse: str) -> None:
    keys = key_schedule(bytes(range(16)))
    assert keys[10].hex() == "13111d7fe3944a17f307a78b4d2b30c5"  # appendix C.1
    text = bytes.fromhex("00112233445566778899aabbccddeeff")
    state = xor(text, keys[0])
    for key in keys[1:10]:
        state = run(encrypt, state, key)
    state = run(last, state, keys[10])
    assert state.hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"
    state = xor(state, keys[10])
    for key in reversed(keys[1:10]):
        state = run(decrypt, state, run(inverse, bytes(16), key))
    assert run(last_back, state, keys[0]) == text


SHA256_START = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)


def primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def cube_root(number: int) -> int:
    """Return the first 32 bits of the fraction of a cube root (FIPS 180-4 4.2.2)."""
    low, high = 0, 1 << 48
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number << 96 else (low, middle - 1)
    return low & 0xFFFF_FFFF


def padded(message: bytes) -> bytes:
    return message + b"\x80" + bytes((55 - len(message)) % 64) + struct.pack(">Q", 8 * len(message))


def four(*words: int) -> bytes:
    """Return words as a register, the first in its highest place."""
    return struct.pack("<4I", *reversed(words))


def sha256(message: bytes) -> str:
    constants = [cube_root(prime) for prime in primes(64)]
    h = SHA256_START
    for at in range(0, len(padded(message)), 64):
        block = [struct.pack("<4I", *struct.unpack_from(">4I", padded(message), at + 16 * i)) for i in range(4)]
        abef, cdgh = four(h[0], h[1], h[4], h[5]), four(h[2], h[3], h[6], h[7])
        for index in range(16):
            words = block[index % 4]
            sums = [
                (w + k) & 0xFFFF_FFFF
                for w, k in zip(struct.unpack("<4I", words), constants[4 * index : 4 * index + 4], strict=True)
            ]
            for pair in (sums[:2], sums[2:]):
                # XMM0 holds W + K, XMM1 the target, XMM2 the other half of the state
                abef, cdgh = rounds(cdgh, abef, struct.pack("<2I", *pair)), abef
            following = run("0f38ccc1", block[index % 4], block[(index + 1) % 4])  # SHA256MSG1
            middle = block[(index + 2) % 4][4:] + block[(index + 3) % 4][:4]
            total = struct.unpack("<4I", following), struct.unpack("<4I", middle)
            added = struct.pack("<4I", *((a + b) & 0xFFFF_FFFF for a, b in zip(*total, strict=True)))
            block[index % 4] = run("0f38cdc1", added, block[(index + 3) % 4])  # SHA256MSG2
        f, e, b, a = struct.unpack("<4I", abef)
        hh, g, d, c = struct.unpack("<4I", cdgh)
        h = tuple((x + y) & 0xFFFF_FFFF for x, y in zip(h, (a, b, c, d, e, f, g, hh), strict=True))
    return struct.pack(">8I", *h).hex()


def rounds(cdgh: bytes, abef: bytes, sums: bytes) -> bytes:
    vectors = b"".join(register.ljust(32, b"\0") for register in (sums.ljust(16, b"\0"), cdgh, abef))
    processor = PlainProcessor([0] * 18, vectors.ljust(512, b"\0"), PlainMemory(0, b""))
    instruction = decode(bytes.fromhex("0f38cbca"))  # sha256rnds2 xmm1, xmm2
    assert instruction is not None
    assert execute(instruction, processor, NoAnswers()).outcome == DONE
    return processor.vectors.low(1)


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ],
)
def test_sha_256_is_that_of_fips_180(message: bytes, digest: str) -> None:
    assert sha256(message) == digest


def sha1(message: bytes) -> str:
    h = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
    for at in range(0, len(padded(message)), 64):
        words = [four(*struct.unpack_from(">4I", padded(message), at + 16 * i)) for i in range(4)]
        abcd, e = four(*h[:4]), four(h[4], 0, 0, 0)
        first = True
        for index in range(20):
            word = words[index % 4]
            if first:
                total = four((h[4] + struct.unpack("<4I", word)[3]) & 0xFFFF_FFFF, *struct.unpack("<4I", word)[2::-1])
            else:
                total = run("0f38c8c1", e, word)  # SHA1NEXTE
            first, e = False, abcd
            abcd = run(f"0f3accc1{index // 5:02x}", abcd, total)  # SHA1RNDS4
            following = run("0f38c9c1", words[index % 4], words[(index + 1) % 4])  # SHA1MSG1
            words[index % 4] = run("0f38cac1", xor(following, words[(index + 2) % 4]), words[(index + 3) % 4])
        last = struct.unpack("<4I", run("0f38c8c1", e, bytes(16)))[3]
        d, c, b, a = struct.unpack("<4I", abcd)
        h = tuple((x + y) & 0xFFFF_FFFF for x, y in zip(h, (a, b, c, d, last), strict=True))
    return struct.pack(">5I", *h).hex()


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "84983e441c3bd26ebaae4aa1f95129e5e54670f1"),
    ],
)
def test_sha_1_is_that_of_fips_180(message: bytes, digest: str) -> None:
    assert sha1(message) == digest


@pytest.mark.parametrize(
    ("selector", "product"),
    [
        (0x00, "1d4d84c85c3440c0929633d5d36f0451"),
        (0x01, "1bd17c8d556ab5a17fa540ac2a281315"),
        (0x10, "1a2bf6db3a30862fbabf262df4b7d5c9"),
        (0x11, "1d1e1f2c592e7c45d66ee03e410fd4ed"),
    ],
)
def test_carry_less_products_are_those_of_the_white_paper(selector: int, product: str) -> None:
    operands = ("48692853686179295b477565726f6e5d", "7b5b54657374566563746f725d53475d")
    a, b = (bytes.fromhex(word)[::-1] for word in operands)
    assert run(f"660f3a44c1{selector:02x}", a, b)[::-1].hex() == product


def test_crc_32c_is_that_of_rfc_3720() -> None:
    for message, expected in ((bytes(32), 0x8A91_36AA), (b"\xff" * 32, 0x62A8_AB43), (b"123456789", 0xE306_9283)):
        processor = PlainProcessor([0] * 18, bytes(512), PlainMemory(0, b""))
        processor.gpr[RAX] = 0xFFFF_FFFF
        instruction = decode(bytes.fromhex("f20f38f0c1"))  # crc32 eax, cl
        assert instruction is not None
        for byte in message:
            processor.gpr[RCX] = byte
            assert execute(instruction, processor, NoAnswers()).outcome == DONE
        assert processor.gpr[RAX] ^ 0xFFFF_FFFF == expected
        assert processor.gpr[RBX] == 0

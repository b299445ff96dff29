"""Seeded damage to the content of a file: of which most keeps it nearly right."""

import random
import re

_WORD = re.compile(rb"[\w.+-]+")
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_NUMBERS = (
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"inf",
    b"1e308",
    b"9" * 30,
    b"9" * 5000,
    b"2.5",
    b"0x10",
    b"18446744073709551616",
    b"",
)
_PIECES = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"\n",
    b",",
    b'"',
    b": ",
    b"\t",
    b"../",
    b"&a ",
    b"*a",
    b"!!int x",
)


def damage(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three changes, of which most keep the file nearly right."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(_CHANGES)(content, rng)
    return content


def _flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\x01"
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _remove(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 2, 8, 100)) :]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    part = content[start : start + rng.choice((1, 8, 100, 5000))]
    return content[:start] + part * rng.choice((2, 3, 50)) + content[start:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.choice((*_PIECES, rng.randbytes(16))) + content[start:]


def _number(content: bytes, rng: random.Random) -> bytes:
    """Another number; in binary files any four or eight bytes may be one."""
    found = list(_NUMBER.finditer(content[: 1 << 20]))
    if not found or b"\x00" in content:
        start = rng.randrange(len(content) + 1)
        value = rng.choice((b"\xff" * 4, b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f", b"\x00\x00\x80\x7f"))
        return content[:start] + value + content[start + len(value) :]
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(_NUMBERS) + content[match.end() :]


def _word(content: bytes, rng: random.Random) -> bytes:
    """One word in the place of another."""
    found = list(_WORD.finditer(content[: 1 << 16]))
    if len(found) < 2:
        return _flip(content, rng)
    one, other = rng.choice(found), rng.choice(found)
    return content[: one.start()] + other[0] + content[one.end() :]


def _lines(content: bytes, rng: random.Random) -> bytes:
    """A line twice, gone, or in another place."""
    lines = content.split(b"\n")
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return b"\n".join(lines)


_CHANGES = (_flip, _cut, _remove, _repeat, _insert, _number, _number, _word, _word, _lines)

"""The readers of YAML, JSON, CSV and tar archives: any bytes give an answer, or one line that says what is wrong."""

import ast
import io
import json
import struct
import tarfile
from pathlib import Path

import pytest

from sepml.errors import SepmlError
from sepml.system.archives import NotTar, members_of, unpack_tar
from sepml.system.csv_files import read_rows
from sepml.system.readers import MOST_YAML_BYTES, load_yaml, parse_json, parse_yaml, read_object

SOURCE = Path(__file__).resolve().parents[2] / "sepml"
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "k0: &k0 [x]\n" + "".join(f"k{n + 1}: &k{n + 1} [*k{n}]\n" for n in range(99))
MERGED_LAUGHS = "m0: &m0 {k: v}\n" + "".join(f"m{n + 1}: &m{n + 1} {{<<: [{','.join([f'*m{n}'] * 9)}]}}\n" for n in range(9))

# Text, and what the message says after the name and the line.
REFUSED_YAML = {
    "a key twice": ("data: {}\nfit: {epochs: 5}\nfit: {epochs: 1}\n", ":3: the key 'fit' stands in line 2 already"),
    "a key twice below": ("fit:\n  epochs: 5\n  clip_norm: 1\n  epochs: 1\n", ":4: the key 'epochs' stands in line 2 already"),
    "a key twice in a line": ("fit: {epochs: 5, epochs: 1}", ":1: the key 'epochs' stands in line 1 already"),
    "no date": ("fit: {epochs: 2001-99-99}", ":1: '2001-99-99' is no date"),
    "no digits": ("fit: {epochs: 0b_}", ":1: '0b_' is no whole number"),
    "called a number": ("fit: {epochs: !!int x}", ":1: 'x' is no whole number"),
    "called a number, and empty": ("fit: {epochs: !!int ''}", ":1: '' is no whole number"),
    "called a truth value": ("a: !!bool maybe", ":1: 'maybe' is no truth value"),
    "called a date": ("a: !!timestamp soon", ":1: 'soon' is no date"),
    "a long number": ("seed: " + "9" * 5000, ":1: a number of 5,000 digits"),
    "deep": ("a: " + "[" * 3000 + "]" * 3000, ":1: nested more than 64 deep"),
    "deep by lines": ("".join(f"{' ' * n}a:\n" for n in range(300)), ":65: nested more than 64 deep"),
    "itself": ("a: &a [*a]", ":1: '*a' stands inside of what it stands for"),
    "itself below": ("a: &a\n  b: *a", ":2: '*a' stands inside of what it stands for"),
    "laughs": (LAUGHS, ":6: aliases stand for more than"),
    "laughs by merging": (MERGED_LAUGHS, ": aliases stand for more than"),
    "a chain of aliases": (CHAIN, ":65: aliases stand"),
    "NUL": ('data: {train: "a\\0b"}', ":1: text with a NUL"),
    "half a character": ('a: "\\ud800"', ":1: text with a NUL or an unpaired surrogate"),
    "no character": ('a: "\\U00FFFFFF"', ": not valid YAML: "),
    "a number as a key": ("1: 2", ":1: the key '1' is no text; put it in quotes"),
    "a list as a key": ("? [1, 2]\n: 3", ":1: the key is a list or a mapping"),
    "code": ("a: !!python/object/apply:os.system [x]", ":1: the tag '!!python/object/apply:os.system' has no meaning"),
    "a set": ("a: !!set {x}", ":1: the tag '!!set' has no meaning"),
    "several": ("---\na: 1\n---\nb: 2\n", ":3: not valid YAML"),
    "no YAML": ("a: [1, 2", ":1: not valid YAML: expected ',' or ']'"),
    "control characters": ("a: \x01", ": not valid YAML"),
    "long": ("a: 1\n" * MOST_YAML_BYTES, ": is longer than 131,072 bytes"),
}


@pytest.mark.parametrize("name", REFUSED_YAML)
def test_yaml_that_is_refused(name, tmp_path):
    text, expected = REFUSED_YAML[name]
    file = tmp_path / "a.yaml"
    file.write_bytes(text.encode("utf-8"))
    with pytest.raises(SepmlError) as caught:
        load_yaml(file)
    assert str(caught.value).startswith(str(file)) and expected in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_yaml_that_is_read():
    assert parse_yaml("\ufeffa: &a {x: 1, y: 2.5}\nb: {<<: *a, <<: {z: no}, x: 3}\nc: [*a, *a, ~]", "a.yaml") == {
        "a": {"x": 1, "y": 2.5},
        "b": {"x": 3, "y": 2.5, "z": False},
        "c": [{"x": 1, "y": 2.5}, {"x": 1, "y": 2.5}, None],
    }
    assert parse_yaml("", "a.yaml") is None
    assert parse_yaml("a: " + "[" * 60 + "]" * 60, "a.yaml") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested more than 64 deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested more than 64 deep"),
        ("[" * 100 + "]" * 100, "nested more than 64 deep"),
        ('{"format": 1, "format": 2}', "the key 'format' stands twice"),
        ('{"a": NaN}', "the number NaN is not finite"),
        ('{"a": 1e999}', "the number 1e999 is not finite"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ('{"a": ' + "9" * 101 + "}", "a number of 101 digits"),
        ('{"a": "\\u0000"}', "text with a NUL"),
        ('{"\\ud800": 1}', "unpaired surrogate"),
        ("[" + "1," * 2_000_001 + "1]", "more than 2,000,000 values"),
        ("[1, 2]", "holds list, expected an object"),
        ("", "Expecting value"),
    ],
)
def test_json_that_is_refused(text, expected, tmp_path):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(SepmlError) as caught:
        read_object(file, "summary")
    assert str(caught.value).startswith(f"{file}: not a summary: ") and expected in str(caught.value)


def test_json_that_is_read():
    value = {"a": [1, -2.5, 10**99, None, True, "\N{GRINNING FACE} \\u0000"], "b": {}}
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value).encode(), "a.json") == value


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,b\n1,2\n\n3\n", "t.csv:4: 1 fields, expected 2 as in the header"),
        (b"a,b\n1,2,3\n", "t.csv:2: 3 fields, expected 2"),
        (b"a,a\n1,2\n", "t.csv: column 'a' stands twice"),
        (b"a,c\n1,2\n", "t.csv: column 'b' is missing"),
        (b"", "t.csv: column 'a' is missing"),
        (b"a,b\n1,\0\n", "t.csv:2: is not a CSV text file: it holds a NUL byte"),
        (b"a,b\n1,\xff\n", "t.csv: is not a CSV text file"),
        (b"a,b\n" + b"x" * 3_000_000, "t.csv:2: a line of more than"),
        (b'a,b\n1,"' + b"x\n" * 200_000, "t.csv: is not a CSV text file: field larger than"),
    ],
)
def test_tables_that_are_refused(content, expected, tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(SepmlError) as caught:
        list(read_rows(file, "table", ("a", "b")))
    assert expected in str(caught.value)


def test_tables_that_are_read(tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(b'\xef\xbb\xbfb,a\r\n1,"x,\ny"\r\n\r\n,2')
    assert list(read_rows(file, "table", ("a",))) == [(3, {"b": "1", "a": "x,\ny"}), (5, {"b": "", "a": "2"})]


def tar_of(*members: tuple[tarfile.TarInfo, bytes], **options) -> bytes:
    box = io.BytesIO()
    with tarfile.open(fileobj=box, mode="w", **options) as tar:
        for member, content in members:
            member.size = member.size or len(content)
            tar.addfile(member, io.BytesIO(content))
    return box.getvalue()


def sparse(size: int) -> bytes:
    """A GNU sparse member that claims `size` bytes and has none."""
    header = bytearray(tarfile.TarInfo("a.wav").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"00000000000\0" * 2
    # Numbers above what octal digits hold are big-endian after a byte 0x80.
    header[483:495] = b"\x80" + bytes(3) + struct.pack(">Q", size)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def linked(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("a.wav")
    member.type, member.linkname = kind, "a.wav"
    return member


@pytest.mark.parametrize(
    "content",
    [
        sparse(1 << 40),
        tar_of((linked(tarfile.SYMTYPE), b"")),
        tar_of((linked(tarfile.LNKTYPE), b"")),
        tar_of((linked(tarfile.FIFOTYPE), b"")),
        tar_of((tarfile.TarInfo("a.wav"), b"x" * 5000))[:3000],
        b"x" * 4096,
    ],
    ids=["sparse", "link to itself", "hard link to itself", "pipe", "broken off", "no archive"],
)
def test_archives_that_are_refused(content, tmp_path):
    with pytest.raises(NotTar):
        members_of(content)
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(SepmlError, match=r"a\.tar: not a whole archive of plain files"):
        unpack_tar(tmp_path / "a.tar", tmp_path / "out", 1 << 20)


def test_archives_that_are_read(tmp_path):
    content = tar_of((tarfile.TarInfo("x/a.txt"), b"one"), (tarfile.TarInfo("b.txt"), b""))
    assert members_of(content) == {"x/a.txt": b"one", "b.txt": b""}
    (tmp_path / "a.tar").write_bytes(content)
    unpack_tar(tmp_path / "a.tar", tmp_path / "out", 3)
    assert (tmp_path / "out" / "x" / "a.txt").read_bytes() == b"one"


@pytest.mark.parametrize(("name", "most"), [("../a.txt", 100), ("/a.txt", 100), ("a.txt", 2)])
def test_an_archive_stays_in_its_folder_and_size(name, most, tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of((tarfile.TarInfo(name), b"one")))
    with pytest.raises(SepmlError, match="not a whole archive of plain files"):
        unpack_tar(tmp_path / "a.tar", tmp_path / "out", most)
    assert not list(tmp_path.rglob("*.txt"))


READERS = {
    "json.loads": "readers.py",
    "json.load": "",
    "yaml.safe_load": "",
    "yaml.load": "readers.py",
    "csv.reader": "csv_files.py",
    "csv.DictReader": "",
    "tarfile.open": "archives.py write_shards.py",
}
# Written by the same process: its settings as JSON gives them back.
ALLOWED = {("json.loads", "resume.py")}


def test_nothing_is_read_past_the_readers():
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if call in READERS and (call, file.name) not in ALLOWED:
                assert file.name in READERS[call].split(), f"{file}:{node.lineno}: {call}"

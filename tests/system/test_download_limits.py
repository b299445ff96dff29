"""Downloads and archives that hold more than they say, or that say nothing that can be used."""

import http.server
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from download_server import serving

from sepml.errors import SepmlError
from sepml.system import archives, download
from sepml.system.archives import unpack_zip
from sepml.system.download import Expected, fetch, zenodo_file

BLOCK = b"x" * 65536
# More than sockets hold: a client that does not stop reading writes it.
ENDLESS = 2000


@dataclass
class Server:
    """What every answer is: its status, its headers, and the blocks that follow."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    block: bytes = BLOCK
    blocks: int = 1
    chunked: bool = False
    asked: int = 0


class Handler(http.server.BaseHTTPRequestHandler):
    state: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.state.asked += 1
        self.send_response(self.state.status)
        headers = {**self.state.headers, **({"Transfer-Encoding": "chunked"} if self.state.chunked else {})}
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        block = self.state.block
        try:
            for _ in range(self.state.blocks):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if self.state.chunked else block)
            if self.state.chunked:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the client has stopped reading, as it should

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_PAUSE_S", 0.001)
    state = Server()
    with serving(Handler, state) as address:
        state.url = f"{address}/file"
        yield state


@pytest.fixture
def written(monkeypatch) -> list[int]:
    """The size of the partial file whenever it is thrown away."""
    sizes: list[int] = []
    plain = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        sizes.append(path.stat().st_size if path.is_file() else 0)
        plain(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    return sizes


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until the end"])
@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (Expected(size=100_000, md5="0" * 32), "has more than 100000 bytes, expected 100000"),
        (Expected(limit=100_000), "has more than 100000 bytes, expected at most 100000"),
    ],
    ids=["promised", "limit"],
)
def test_no_more_is_written_than_was_promised(server, written, tmp_path, chunked, expected, said):
    server.chunked, server.blocks = chunked, ENDLESS
    with pytest.raises(SepmlError, match=said):
        fetch(server.url, tmp_path / "file", expected)
    assert written and max(written) <= 100_000 and list(tmp_path.iterdir()) == []


def test_a_length_above_what_was_promised_is_refused_at_once(server, written, tmp_path):
    server.headers, server.blocks = {"Content-Length": str(10**15)}, 1
    for expected, said in ((Expected(size=5), "expected 5"), (Expected(), "expected at most")):
        with pytest.raises(SepmlError, match=f"has {10**15} bytes, {said}"):
            fetch(server.url, tmp_path / "file", expected)
    assert max(written) == 0


@pytest.mark.parametrize("length", ["abc", "-5", "1e3", "9" * 5000])
def test_a_length_that_is_no_number_is_not_used(server, tmp_path, length):
    server.headers = {"Content-Length": length}
    fetch(server.url, tmp_path / "file", Expected(size=len(BLOCK)))
    assert (tmp_path / "file").read_bytes() == BLOCK


@pytest.mark.parametrize("address", ["http://[", "http://[::1", "http://" + "a" * 70 + ".b\u00fc/", "https://a:b:c/"])
def test_a_redirect_to_no_address(server, tmp_path, address):
    server.status, server.headers, server.blocks = 302, {"Location": address.encode().decode("latin-1")}, 0
    with pytest.raises(SepmlError) as caught:
        fetch(server.url, tmp_path / "file")
    assert str(caught.value).startswith(f"{server.url}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("block", "blocks"), [(BLOCK, ENDLESS), (b"[" * 200_000, 1)], ids=["endless", "deep"])
def test_a_record_that_is_endless_or_deep(server, block, blocks):
    server.block, server.blocks = block, blocks
    with pytest.raises(SepmlError, match="cannot be read"):
        zenodo_file("", "a.zip", server.url)


# Archives


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


@pytest.fixture
def few(monkeypatch) -> None:
    monkeypatch.setattr(archives, "_UNPACKED_BYTES", 100_000)


def test_a_bomb_is_not_unpacked(tmp_path, few):
    bomb = zip_of(tmp_path / "b.zip", {f"{k}.wav": bytes(1_000_000) for k in range(5)})
    with pytest.raises(SepmlError, match=r"b\.zip: would unpack to 5000000 bytes, expected at most \d+; nothing was unpacked"):
        unpack_zip(bomb, tmp_path / "out")
    assert [f.name for f in tmp_path.iterdir()] == ["b.zip"]


def test_a_bomb_that_lies_of_its_size_ends_at_what_it_says(tmp_path, few):
    bomb = zip_of(tmp_path / "b.zip", {"a.wav": bytes(50_000_000)})
    real, told = struct.pack("<L", 50_000_000), struct.pack("<L", 1000)
    bomb.write_bytes(bomb.read_bytes().replace(real, told))
    with pytest.raises(SepmlError, match=r"b\.zip: is not a whole zip archive"):
        unpack_zip(bomb, tmp_path / "out")
    assert [f.name for f in tmp_path.iterdir()] == ["b.zip"]


def test_what_the_disk_cannot_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(SepmlError, match=r"a\.zip: unpacks to 1000 bytes, the disk of .* has 10 free"):
        unpack_zip(zip_of(tmp_path / "a.zip", {"a": bytes(1000)}), tmp_path / "out")


@pytest.mark.parametrize("name", [".", "./.", "\0", "\0a"])
def test_a_member_without_a_name(tmp_path, name):
    with pytest.raises(SepmlError, match=r"a\.zip: the member '.*' names no file; nothing was unpacked"):
        unpack_zip(zip_of(tmp_path / "a.zip", {"x": b"1", name: b"2"}), tmp_path / "out")
    assert [f.name for f in tmp_path.iterdir()] == ["a.zip"]


def test_a_name_that_is_no_text(tmp_path):
    path = zip_of(tmp_path / "a.zip", {"\u00fcx": b"1"})
    path.write_bytes(path.read_bytes().replace("\u00fc".encode(), b"\xff\xfe"))
    with pytest.raises(SepmlError, match=r"a\.zip: is not a whole zip archive"):
        unpack_zip(path, tmp_path / "out")

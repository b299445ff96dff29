"""A Hugging Face Hub on this machine: as much of its interface as its own client needs to fetch and to push models."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".bin")


@dataclass
class Hub:
    """Repositories (name -> revision -> path -> content) and what was asked."""

    url: str = ""
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    """Names of repositories whose every request is answered with 500."""
    instead: dict[str, object] = field(default_factory=dict)
    """The end of a path -> what is answered to GET instead: bytes, what becomes JSON, or the address of a redirect (str)."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of files (ETag, X_Repo_Commit ...) in place of the true ones."""

    def commit(self, repo: str, revision: str) -> str | None:
        """The commit that a branch, or a commit itself, stands for."""
        revisions = self.repos[repo]
        names = {hashlib.sha1(f"{repo} {name}".encode()).hexdigest(): name for name in revisions}
        return next((sha for sha, name in names.items() if revision in (sha, name)), None)

    def files(self, repo: str, revision: str) -> dict[str, bytes]:
        """The files of a branch or a commit."""
        return next(files for name, files in self.repos[repo].items() if self.commit(repo, name) == self.commit(repo, revision))


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def answer(self, status: int, content: object = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        if any(name in path for name in self.hub.refuses):
            return self.answer(500, {"error": "the disk is on fire"})
        instead = next((content for end, content in self.hub.instead.items() if path.endswith(end)), None)
        if isinstance(instead, str):
            return self.answer(302, b"", Location=instead)
        if instead is not None:
            return self.answer(200, instead)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self.model("/".join(parts[2:4]), parts[4:])
        if parts == ["api", "repos", "create"]:
            asked = json.loads(self.body)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            self.hub.repos.setdefault(name, {"main": {}})
            return self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": name})
        if parts == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        if parts[2:3] == ["resolve"]:
            return self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch()
        if parts[0] == "upload":
            self.hub.uploads[parts[1]] = self.body
            return self.answer(200, {})
        return self.answer(404, {"error": "no such page"}, X_Error_Code="EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def model(self, repo: str, rest: list[str]) -> None:
        if repo not in self.hub.repos:
            return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        verb, revision = (*rest, "main", "main")[:2] if rest else ("revision", "main")
        sha = self.hub.commit(repo, revision)
        if sha is None:
            return self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        if verb == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular", "shouldIgnore": False}
                for file in json.loads(self.body)["files"]
            ]
            return self.answer(200, {"files": modes})
        if verb == "commit":
            for line in map(json.loads, self.body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.hub.repos[repo][revision][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.hub.repos[repo][revision][value["path"]] = self.hub.uploads[value["oid"]]
            address = f"{self.hub.url}/{repo}/commit/{sha}"
            return self.answer(200, {"commitUrl": address, "commitOid": sha, "success": True})
        files = self.hub.files(repo, revision)
        if verb == "tree":
            return self.answer(200, [entry(path, content) for path, content in sorted(files.items())])
        siblings = [{"rfilename": path} for path in sorted(files)]
        return self.answer(200, {"id": repo, "modelId": repo, "sha": sha, "siblings": siblings, "private": False, "tags": []})

    def resolve(self, repo: str, revision: str, path: str) -> None:
        files = self.hub.files(repo, revision) if repo in self.hub.repos else {}
        if path not in files:
            return self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        true = {"ETag": etag, "X_Repo_Commit": self.hub.commit(repo, revision) or ""}
        return self.answer(200, files[path], **{**true, **self.hub.headers})

    def batch(self) -> None:
        objects = [
            {**wanted, "authenticated": True, "actions": {"upload": {"href": f"{self.hub.url}/upload/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})


def entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use(hub: Hub | str, cache: str, monkeypatch) -> None:
    """Point the client in this process at a hub: it has read its environment already."""
    from huggingface_hub import constants

    url = hub if isinstance(hub, str) else hub.url
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_test")

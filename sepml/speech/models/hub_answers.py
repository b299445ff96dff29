"""What a Hugging Face Hub answers, checked before its client acts on it.

The client makes file names of what it is told: of the ETag of a file, of the commit, of the paths in a listing. Its version
2.4.0 does not look at the first two, and writes outside its cache when they hold `../`.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HFValidationError

from sepml.errors import SepmlError
from sepml.system.json_files import parse_json

_HEADERS = ("ETag", "X-Linked-Etag", "X-Repo-Commit")
_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\0]{1,255}")
# Of a request, kept when it is redirected: whether the first address was one of the Hub's programming interface.
_LISTING = "sepml_listing"
_IN_TURN = threading.Lock()
PORTAL = "is there a proxy or a login page in between?"


@contextmanager
def checked_answers(repo: str) -> Iterator[None]:
    """Let the client fetch a repository, one at a time in this process, and refuse what no Hub answers.

    Raises:
        SepmlError: an answer names a file outside the cache, or is not what the client expects.
    """
    hub = f"{repo}: the Hugging Face Hub ({constants.ENDPOINT})"

    def mark(request: Any) -> None:
        request.extensions.setdefault(_LISTING, "/api/" in request.url.path)

    def check(response: Any) -> None:
        for name, value in _names(response):
            if not _NAME.fullmatch(value):
                raise SepmlError(f"{hub} sends {value[:80]!r} as {name}, expected a plain name; nothing was kept of it")

    session = get_session()
    with _IN_TURN:
        hooks = session.event_hooks
        session.event_hooks = {"request": [*hooks["request"], mark], "response": [*hooks["response"], check]}
        try:
            yield
        except (OSError, HFValidationError, SepmlError):
            raise
        except (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            # Whatever the client trips over: a page of HTML, a list, an answer without its commit.
            found = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SepmlError(f"{hub} answers with something that is no answer of a Hub ({found}); {PORTAL}") from error
        finally:
            session.event_hooks = hooks


def _names(response: Any) -> Iterator[tuple[str, str]]:
    """What the client may make file names of: each with what it is called."""
    if response.request.method == "HEAD":
        for header in _HEADERS:
            if header in response.headers:
                yield header, response.headers[header].removeprefix("W/").strip('"')
    elif response.request.extensions.get(_LISTING) and response.is_success:
        response.read()
        try:
            content = parse_json(response.content, str(response.request.url))
        except SepmlError:
            return  # the client will say so
        yield from _in_listing(content)


def _in_listing(content: Any) -> Iterator[tuple[str, str]]:
    if isinstance(content, dict):
        if content.get("sha") is not None:
            yield "commit", str(content["sha"])
        entries = content.get("siblings")
    else:
        entries = content
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            path = str(entry.get("path") or entry.get("rfilename") or "x")
            for part in (path[:1], *PurePosixPath(path).parts):
                yield "the path of a file", part
            oids = [entry.get("oid"), entry["lfs"].get("oid") if isinstance(entry.get("lfs"), dict) else None]
            yield from (("the identifier of a file", str(oid)) for oid in oids if oid is not None)

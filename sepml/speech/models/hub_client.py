"""The client of the Hugging Face Hub: its answers are checked before the client uses them, its errors become one line.

The client builds file names from the ETag of a file, from the commit, and from the paths in a listing. Its version 2.4.0 does
not check the first two, and writes outside its cache when they hold `../`.
"""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from sepml.errors import SepmlError
from sepml.system.extras import needs_extra
from sepml.system.readers import parse_json

with needs_extra("hub", "the Hugging Face Hub"):
    from huggingface_hub import constants, get_session

    # Versions before 1.0, whose answers cannot be checked, do not have it.
    from huggingface_hub import set_client_factory as _  # noqa: F401
    from huggingface_hub import snapshot_download as snapshot_download
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

_HEADERS = ("ETag", "X-Linked-Etag", "X-Repo-Commit")
_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\0]{1,255}")
# A mark of a request, kept when it is redirected: whether its first address belongs to the Hub's API.
_LISTING = "sepml_listing"
_FETCHING = threading.Lock()
_PORTAL = "is there a proxy or a login page in between?"


@contextmanager
def checked_answers(repo: str) -> Iterator[None]:
    """Let the client fetch a repository, one at a time in this process, and refuse malformed answers.

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
    with _FETCHING:
        hooks = session.event_hooks
        session.event_hooks = {"request": [*hooks["request"], mark], "response": [*hooks["response"], check]}
        try:
            yield
        except (OSError, HFValidationError, SepmlError):
            raise
        except (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            # The client raises these for a page of HTML, a list, or an answer without its commit.
            found = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SepmlError(f"{hub} sends an answer that is not one of a Hub ({found}); {_PORTAL}") from error
        finally:
            session.event_hooks = hooks


def _names(response: Any) -> Iterator[tuple[str, str]]:
    """The parts of an answer from which the client may make file names, each with a description."""
    if response.request.method == "HEAD":
        for header in _HEADERS:
            if header in response.headers:
                yield header, response.headers[header].removeprefix("W/").strip('"')
    elif response.request.extensions.get(_LISTING) and response.is_success:
        response.read()
        try:
            content = parse_json(response.content, str(response.request.url))
        except SepmlError:
            return  # the client reports it
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


@contextmanager
def hub_errors(repo: str, revision: str | None = None, before: str = "", only_here: bool = False) -> Iterator[None]:
    """Show progress bars on a terminal only, and turn errors of the Hub's client into one line.

    Args:
        before: text before the explanation when there is no such model.
        only_here: the Hub is not asked; only the local cache is used.

    Raises:
        SepmlError: the Hub refuses or cannot be reached, or its files cannot be written.
    """
    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    except SepmlError:
        raise
    except Exception as error:
        not_here = only_here and isinstance(error, LocalEntryNotFoundError)
        explanation = f"{before}not in the local cache" if not_here else _explanation(error, repo, revision, before)
        if explanation is None:
            raise
        raise SepmlError(f"{repo}: {explanation}") from error
    finally:
        if quiet:
            enable_progress_bars()


def _explanation(error: BaseException, repo: str, revision: str | None, before: str) -> str | None:
    """What an error of the Hub's client means; None for other errors."""
    hub = f"the Hugging Face Hub ({constants.ENDPOINT})"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        # The client looked for an earlier copy when the Hub refused; why it refused is what matters.
        return _explanation(error.__cause__, repo, revision, before)
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, FileMetadataError):
        return f"{hub} answers without the commit or the ETag of a file; {_PORTAL}"
    if isinstance(error, GatedRepoError):
        return f"{hub} wants you to agree to its terms there first, and HF_TOKEN set"
    if isinstance(error, RevisionNotFoundError):
        return f"{hub} has no revision '{revision}' of it"
    if isinstance(error, RepositoryNotFoundError):
        return f"{before}{hub} has no such model, or only for those who may see it (HF_TOKEN)"
    if isinstance(error, HFValidationError):
        return f"{before}not an id of {hub}, expected user/name"
    if isinstance(error, HfHubHTTPError):
        lines = (error.server_message or str(error)).strip().splitlines() or ["nothing"]
        return f"{hub} answers {error.response.status_code}: {lines[0]}"
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return f"{before}not fetched earlier, and HF_HUB_OFFLINE forbids asking {hub}"
    # The HTTP library of the client has its own errors for each way in which a connection fails.
    if isinstance(error, LocalEntryNotFoundError) or type(error).__module__.startswith(("httpx", "httpcore")):
        return f"{before}{hub} cannot be reached"
    return f"cannot be kept on this machine: {error}" if isinstance(error, OSError) else None

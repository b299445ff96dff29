"""The web application of `sepml serve`: its addresses, their answers, and ZIP archives that are created while sent."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sepml.errors import SepmlError, one_line
from sepml.pages import read_template, render, script_hash
from sepml.pages.style import page_style
from sepml.speech.demo.guard import Guard
from sepml.speech.demo.jobs import Jobs, UploadJob
from sepml.speech.demo.live_routes import LiveRoutes
from sepml.speech.demo.separate_upload import check_header
from sepml.speech.demo.streams import Streams
from sepml.speech.demo.uploads import FORM_BYTES, Limits, Pace, Refused, UploadBudget, receive
from sepml.version import __version__

_SCRIPTS = ("players.js", "compare.js", "upload.js", "record.js", "live_stream.js", "live.js", "serve.js")
_ABSENT = "there is nothing here"
_BUDGET_UPLOADS = 20
_BLOCK = 1 << 18


@dataclass
class Page:
    """The state that the addresses share.

    Attributes:
        jobs: the separations. host: the address that the server listens on. pace: of uploads.
        streams: of visitors who speak now.
    """

    jobs: Jobs
    host: str
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self._limits = self.jobs.limits
        self.streams = Streams(self.jobs.separators)
        self._budget = UploadBudget(_BUDGET_UPLOADS * self._limits.size)
        script = "".join(map(read_template, _SCRIPTS))
        separators = self.jobs.separators
        self._html = _index(script, self._limits, sorted(separators.by_talkers) if separators.counter else [])
        self._policy = (
            "default-src 'none'; connect-src 'self'; media-src 'self' blob:; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'self' '{script_hash(script)}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def app(self) -> Guard:
        """The application."""
        routes = [
            Route("/", self._index),
            Route("/jobs", self._upload, methods=["POST"]),
            Route("/jobs/{token}", self._state),
            Route("/jobs/{token}", self._drop, methods=["DELETE"]),
            Route("/jobs/{token}/{name}", self._file),
            Route("/results.zip", self._zip),
            *LiveRoutes(self.streams, self._speakers).routes,
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, SepmlError: _refused})
        # The answer of a redirect would contain the host that the request names.
        app.router.redirect_slashes = False
        return Guard(app, self.host, self._policy)

    async def _index(self, request: Request) -> Response:
        return HTMLResponse(self._html)

    async def _upload(self, request: Request) -> Response:
        # Refused before it is read; the bytes that arrive are counted as well.
        if _length(request) > self._limits.size + FORM_BYTES:
            self._limits.check_size("the upload", _length(request))
        job = self.jobs.new(self._speakers(request))
        kind = request.headers.get("content-type", "")
        try:
            upload = await receive(request.stream(), kind, job.uploads, self._limits, self.pace, self._budget)
            await run_in_threadpool(check_header, upload, self._limits)
            self.jobs.submit(job, upload)
        except ClientDisconnect:
            await run_in_threadpool(self.jobs.drop, job)
            return Response(status_code=400)
        except BaseException:
            self.jobs.drop(job)
            raise
        return JSONResponse({"job": job.token, "name": upload.name}, 202, {"Location": f"/jobs/{job.token}"})

    async def _state(self, request: Request) -> Response:
        job = self._found(request.path_params["token"])
        found = job.result
        state = {"state": job.state, "ahead": self.jobs.ahead(job), "fraction": job.fraction, "left": job.left}
        if found is not None:
            html = render("result.html", found=found)
            lines = [line.text for line in found.lines]
            state |= {"html": html, "rate": found.rate, "seconds": found.seconds, "lines": lines, "talkers": found.talkers}
        return JSONResponse(state | {"error": job.error})

    async def _drop(self, request: Request) -> Response:
        await run_in_threadpool(self.jobs.drop, self._found(request.path_params["token"]))
        return Response(status_code=204)

    async def _file(self, request: Request) -> ASGIApp:
        job = self._found(request.path_params["token"])
        files = job.result.files if job.result is not None else ()
        number = next((n for n, file in enumerate(files) if file.name == request.path_params["name"]), None)
        if number is None or job.result is None:
            raise Refused(404, _ABSENT)
        name = job.result.downloads[number]
        response = FileResponse(files[number], media_type="audio/wav", filename=name, content_disposition_type="inline")
        return _KeepingFiles(self.jobs, [job], response)

    async def _zip(self, request: Request) -> ASGIApp:
        tokens = dict.fromkeys(request.query_params.getlist("job"))
        if not tokens:
            raise Refused(400, "expected the jobs whose files are wanted: ?job=TOKEN&job=TOKEN")
        # The results of some may have been deleted to make room.
        jobs = [job for job in map(self.jobs.find, tokens) if job is not None and job.result is not None]
        if not jobs:
            raise Refused(404, _ABSENT)
        headers = {"Content-Disposition": 'attachment; filename="separated.zip"'}
        return _KeepingFiles(
            self.jobs,
            jobs,
            StreamingResponse(zip_stream(_entries(jobs), _note(len(tokens) - len(jobs))), 200, headers, "application/zip"),
        )

    def _speakers(self, request: Request) -> int | None:
        """The number of talkers that the address of an upload says; None is to be found."""
        asked = request.query_params.get("speakers", "auto")
        numbers = {str(number): number for number in self.jobs.separators.by_talkers}
        if asked != "auto" and asked not in numbers:
            raise Refused(400, f"speakers is {asked[:20]!r}, expected one of auto, {', '.join(numbers)}")
        return numbers.get(asked)

    def _found(self, token: str) -> UploadJob:
        job = self.jobs.find(token)
        if job is None:
            raise Refused(404, _ABSENT)
        return job


class _KeepingFiles:
    """A response during which the files of jobs are not deleted."""

    def __init__(self, jobs: Jobs, of: list[UploadJob], response: Response) -> None:
        self._jobs, self._of, self._response = jobs, of, response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._jobs.reading(self._of):
            await self._response(scope, receive, send)


def _length(request: Request) -> int:
    """The length of the body in the header of a request; 0 if there is none."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0


def _entries(jobs: list[UploadJob]) -> Iterator[tuple[str, Path]]:
    for job in jobs:
        if job.result is not None:
            yield from zip(job.result.downloads, job.result.files, strict=True)


def _note(missing: int) -> dict[str, str]:
    """A note on recordings that are not in an archive."""
    text = f"{missing} recordings were deleted to make room; separate fewer at a time, or use `sepml separate`.\n"
    return {"missing.txt": text} if missing else {}


def _index(script: str, limits: Limits, numbers: list[int]) -> str:
    """The page; where there are several numbers of talkers, the visitor may choose one."""
    too_large = str(limits.refusal("size", f"{{name}}: is larger than {limits.size / 1e6:g} MB"))
    return render(
        "serve.html",
        style=page_style(),
        script=script,
        limits=limits,
        numbers=numbers,
        too_large=too_large,
        version=__version__,
    )


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"error": {404: _ABSENT, 405: "this is not done here"}.get(status, str(error))}, status)


async def _refused(request: Request, error: Exception) -> Response:
    headers = {"Retry-After": "5"} if isinstance(error, Refused) and error.status == 503 else None
    message = one_line(error) if isinstance(error, SepmlError) else str(error)
    return JSONResponse({"error": message}, error.status if isinstance(error, Refused) else 422, headers)


class _Sink:
    """Collects the bytes that `ZipFile` writes; without `seek`, so that headers are not written again."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, content: bytes) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        """The bytes written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def zip_stream(entries: Iterable[tuple[str, Path]], notes: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """A ZIP archive that is created while it is sent; uncompressed, as sound hardly shrinks.

    Args:
        entries: names in the archive and files; a repeated name is numbered.
        notes: texts by their names.
    """
    sink = _Sink()
    taken: set[str] = set()
    with ZipFile(sink, "w") as archive:  # type: ignore[call-overload]
        for name, text in (notes or {}).items():
            archive.writestr(_unused_name(name, taken), text)
        for name, path in entries:
            entry = ZipInfo.from_file(path, _unused_name(name, taken))
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while block := source.read(_BLOCK):
                    target.write(block)
                    yield sink.take()
    yield sink.take()


def _unused_name(name: str, taken: set[str]) -> str:
    stem, dot, suffix = name.rpartition(".")
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{stem} ({number}){dot}{suffix}"
    taken.add(free)
    return free

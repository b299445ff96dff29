"""The addresses of `sepml serve` and what is behind them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sepml.errors import SepmlError, one_line
from sepml.speech.demo.archive import zipped
from sepml.speech.demo.guard import Guard
from sepml.speech.demo.jobs import Job, Jobs
from sepml.speech.demo.limits import Limits, Refused
from sepml.speech.demo.separate_upload import check_header
from sepml.speech.demo.uploads import FORM_BYTES, Pace, Room, receive
from sepml.speech.report.rendering import read_template, render, script_hash
from sepml.version import __version__

_SCRIPTS = ("players.js", "compare.js", "upload.js", "record.js", "serve.js")
_ABSENT = "there is nothing here"
_ROOM_UPLOADS = 20


@dataclass
class Page:
    """What the addresses share.

    Attributes:
        jobs: what is separated. host: the address listened on. pace: of uploads.
    """

    jobs: Jobs
    host: str
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self._limits = self.jobs.limits
        self._room = Room(_ROOM_UPLOADS * self._limits.size)
        script = "".join(map(read_template, _SCRIPTS))
        self._html = _index(script, self._limits)
        self._policy = (
            "default-src 'none'; connect-src 'self'; media-src 'self' blob:; img-src data:; style-src 'unsafe-inline'; "
            f"script-src '{script_hash(script)}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, SepmlError: _refused})
        # Their answer would carry the address that the request names.
        app.router.redirect_slashes = False
        return Guard(app, self.host, self._policy)

    async def _index(self, request: Request) -> Response:
        return HTMLResponse(self._html)

    async def _upload(self, request: Request) -> Response:
        # Refused before it is read; what comes is counted all the same.
        if _length(request) > self._limits.size + FORM_BYTES:
            self._limits.check_size("the upload", _length(request))
        job = self.jobs.new()
        kind = request.headers.get("content-type", "")
        try:
            upload = await receive(request.stream(), kind, job.uploads, self._limits, self.pace, self._room)
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
            state |= {"html": html, "rate": found.rate, "seconds": found.seconds, "lines": lines}
        return JSONResponse(state | {"error": job.error})

    async def _drop(self, request: Request) -> Response:
        await run_in_threadpool(self.jobs.drop, self._found(request.path_params["token"]))
        return Response(status_code=204)

    async def _file(self, request: Request) -> Response:
        job = self._found(request.path_params["token"])
        files = job.result.files if job.result is not None else ()
        number = next((n for n, file in enumerate(files) if file.name == request.path_params["name"]), None)
        if number is None or job.result is None:
            raise Refused(404, _ABSENT)
        named = {"filename": job.result.downloads[number], "content_disposition_type": "inline"}
        return _Kept(self.jobs, [job], FileResponse(files[number], media_type="audio/wav", **named))

    async def _zip(self, request: Request) -> Response:
        tokens = dict.fromkeys(request.query_params.getlist("job"))
        if not tokens:
            raise Refused(400, "expected the jobs whose files are wanted: ?job=TOKEN&job=TOKEN")
        # A separation in the middle of many may have been deleted to make room.
        jobs = [job for job in map(self.jobs.find, tokens) if job is not None and job.result is not None]
        if not jobs:
            raise Refused(404, _ABSENT)
        headers = {"Content-Disposition": 'attachment; filename="separated.zip"'}
        return _Kept(
            self.jobs,
            jobs,
            StreamingResponse(zipped(_entries(jobs), _note(len(tokens) - len(jobs))), 200, headers, "application/zip"),
        )

    def _found(self, token: str) -> Job:
        job = self.jobs.find(token)
        if job is None:
            raise Refused(404, _ABSENT)
        return job


class _Kept:
    """A response during which the files of jobs stay."""

    def __init__(self, jobs: Jobs, of: list[Job], response: Response) -> None:
        self._jobs, self._of, self._response = jobs, of, response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._jobs.reading(self._of):
            await self._response(scope, receive, send)


def _length(request: Request) -> int:
    """The length that a request says its body has; 0 where it says none."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0


def _entries(jobs: list[Job]) -> Iterator[tuple[str, Path]]:
    for job in jobs:
        if job.result is not None:
            yield from zip(job.result.downloads, job.result.files, strict=True)


def _note(missing: int) -> dict[str, str]:
    """What an archive says about recordings that are not in it."""
    text = f"{missing} recordings were deleted to make room; separate fewer at a time, or use `sepml separate`.\n"
    return {"missing.txt": text} if missing else {}


def _index(script: str, limits: Limits) -> str:
    style = read_template("base.css") + read_template("serve.css")
    too_large = str(limits.refusal("size", f"{{name}}: is larger than {limits.size / 1e6:g} MB"))
    return render("serve.html", style=style, script=script, limits=limits, too_large=too_large, version=__version__)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"error": {404: _ABSENT, 405: "this is not done here"}.get(status, str(error))}, status)


async def _refused(request: Request, error: Exception) -> Response:
    headers = {"Retry-After": "5"} if isinstance(error, Refused) and error.status == 503 else None
    message = one_line(error) if isinstance(error, SepmlError) else str(error)
    return JSONResponse({"error": message}, error.status if isinstance(error, Refused) else 422, headers)

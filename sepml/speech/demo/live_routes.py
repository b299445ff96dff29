"""The addresses of separation while people speak.

`POST /live?rate=HZ` begins a stream, `POST /live/TOKEN` takes samples and answers with those of the talkers that are known,
and `DELETE /live/TOKEN` answers with the rest.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sepml.pages import read_template
from sepml.speech.demo.streams import Stream, Streams
from sepml.speech.demo.uploads import Refused

_MOST_SECONDS = 10.0
"""Of sound in one request."""
_STALLED_SECONDS = 20.0
_DELAY = 1.0
Number = TypeVar("Number", int, float)


class LiveRoutes:
    """Answers the requests of `streams`.

    Args:
        speakers: the number of talkers that a request says, None without one.
    """

    def __init__(self, streams: Streams, speakers: Callable[[Request], int | None]) -> None:
        self.streams, self._speakers = streams, speakers

    @property
    def routes(self) -> list[Route]:
        """The addresses."""
        return [
            Route("/capture.js", self._capture),
            Route("/live", self._new, methods=["POST"]),
            Route("/live/{token}", self._push, methods=["POST"]),
            Route("/live/{token}", self._finish, methods=["DELETE"]),
        ]

    async def _capture(self, request: Request) -> Response:
        return Response(read_template("capture.js"), media_type="text/javascript")

    async def _new(self, request: Request) -> Response:
        rate, delay = _number(request, "rate", int, None), _number(request, "delay", float, _DELAY)
        stream = await run_in_threadpool(self.streams.new, rate, delay, self._speakers(request))
        found = {"stream": stream.token, "talkers": stream.live.n_src, "delay": stream.live.delay}
        return JSONResponse(found, 201, {"Location": f"/live/{stream.token}"})

    async def _push(self, request: Request) -> Response:
        stream = self._found(request)
        # Of a visitor one request at a time, so that those of others do not wait behind them.
        with self.streams.used(stream):
            try:
                samples = await _received(request, round(_MOST_SECONDS * stream.live.sample_rate) * 2)
            except ClientDisconnect:
                return Response(status_code=400)
            return _answer(stream, await run_in_threadpool(self.streams.push, stream, samples))

    async def _finish(self, request: Request) -> Response:
        stream = self._found(request)
        with self.streams.used(stream):
            return _answer(stream, await run_in_threadpool(self.streams.finish, stream))

    def _found(self, request: Request) -> Stream:
        stream = self.streams.find(request.path_params["token"])
        if stream is None:
            raise Refused(404, "this stream is not kept any more")
        return stream


def _answer(stream: Stream, samples: bytes) -> Response:
    headers = {"Sepml-Certainty": f"{stream.live.certainty:.3f}"}
    return Response(samples, 200, headers, "application/octet-stream")


def _number(request: Request, name: str, kind: Callable[[str], Number], default: Number | None) -> Number:
    given = request.query_params.get(name)
    if given is None and default is not None:
        return default
    if given is None:
        raise Refused(400, f"expected the {name} of the samples in Hz, such as /live?{name}=16000")
    try:
        return kind(given)
    except ValueError as error:
        raise Refused(400, f"{name} is {given[:20]!r}, expected a number") from error


async def _received(request: Request, most: int) -> bytes:
    """The body of a request, `most` bytes at most."""
    content = b""
    try:
        async with asyncio.timeout(_STALLED_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > most:
                    raise Refused(413, f"more than {_MOST_SECONDS:g} s of samples in one request; send them in parts")
    except TimeoutError as error:
        raise Refused(408, "the samples come too slowly or have stopped") from error
    if len(content) % 2:
        raise Refused(400, f"{len(content)} bytes are no whole number of 16-bit samples")
    return content

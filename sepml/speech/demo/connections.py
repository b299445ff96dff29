"""Connections that cannot be held open by doing nothing: uvicorn's protocol with deadlines that it lacks."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 20.0
"""Within this time after connecting, or after the answer before, a request's header must be there."""
STALLED_SECONDS = 30.0
"""So long a visitor may take no byte of what is waiting to be sent."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1, where a connection is cut when its deadline passes.

    Uvicorn waits for a header for ever, and for visitors who do not read. What is sent after the header has its own deadline
    (`uploads.Pace`).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._header: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._malformed = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A visitor has connected."""
        super().connection_made(transport)
        self._header = self.loop.call_later(HEADER_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._header, self._stalled = _cancelled(self._header), _cancelled(self._stalled)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if not self._malformed:
            super().data_received(data)

    def handle_events(self) -> None:
        """Something has come."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._header = _cancelled(self._header)

    def on_response_complete(self) -> None:
        """An answer is complete; the next request may begin."""
        _cancelled(self._header)
        self._header = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """A request is malformed: answer, and take what still comes, as closing on it would take the answer away.

        Uvicorn closes at once, and raises where an answer has begun already.
        """
        self._malformed = True
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        content = msg.encode("ascii")
        headers = [("content-type", "text/plain"), ("content-length", str(len(content))), ("connection", "close")]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write_eof()
        _cancelled(self._header)
        self._header = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def pause_writing(self) -> None:
        """The visitor reads more slowly than is sent."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The visitor has read."""
        self._stalled = _cancelled(self._stalled)
        super().resume_writing()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()

"""Connections that cannot be held open by doing nothing: uvicorn's protocol with deadlines that it lacks."""

import asyncio
from typing import Any

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

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A visitor has connected."""
        super().connection_made(transport)
        self._header = self.loop.call_later(HEADER_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._header, self._stalled = _cancelled(self._header), _cancelled(self._stalled)
        super().connection_lost(exc)

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

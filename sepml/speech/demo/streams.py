"""Visitors whose speech is separated while it comes: blocks in, blocks out, over plain HTTP."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sepml.errors import SepmlError
from sepml.speech.audio.pcm import as_pcm, from_pcm
from sepml.speech.audio.recordings import require_recorded_rate
from sepml.speech.demo.uploads import Refused
from sepml.speech.separation.live import Live
from sepml.speech.separation.separators import Separators

_TALKERS = 2


@dataclass
class Stream:
    """What one visitor says.

    Attributes:
        token: a secret that gives access to it. live: separates it. asked: time of the last request, monotonic seconds.
        ended: whether its last estimates have been given. in_use: whether a request is worked on.
    """

    token: str
    live: Live
    asked: float
    ended: bool = False
    in_use: bool = False


class Streams:
    """Live separations, each for one visitor.

    Args:
        separators: without a number of talkers that a visitor says, the one for two, or else the largest.
        most: at a time. idle: seconds without a request after which a stream is forgotten. clock: monotonic seconds.
    """

    def __init__(
        self, separators: Separators, most: int = 4, idle: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.separators, self.most, self.idle, self._clock = separators, most, idle, clock
        self._streams: dict[str, Stream] = {}
        self._changed = threading.Lock()

    def new(self, rate: int, delay: float, speakers: int | None = None) -> Stream:
        """A stream.

        Args:
            rate: of the samples that will come, Hz. delay: seconds, see `Live`. speakers: how many talk.

        Raises:
            Refused: there are too many, or these are no values that a stream can have.
        """
        numbers = self.separators.by_talkers
        separator = numbers.get(speakers or _TALKERS, self.separators.largest)
        try:
            require_recorded_rate("the stream", rate)
            live = separator.live(rate, delay)
        except SepmlError as error:
            raise Refused(400, str(error)) from error
        stream = Stream(secrets.token_urlsafe(16), live, self._clock())
        with self._changed:
            self._forget_idle()
            if len(self._streams) >= self.most:
                raise Refused(503, f"{len(self._streams)} visitors are being listened to already; try again in a moment")
            self._streams[stream.token] = stream
        return stream

    def find(self, token: str) -> Stream | None:
        """The stream with a token; updates the time of the last request."""
        with self._changed:
            self._forget_idle()
            stream = self._streams.get(token)
            if stream is not None:
                stream.asked = self._clock()
            return stream

    @contextmanager
    def used(self, stream: Stream) -> Iterator[None]:
        """Keep a stream while a request is worked on.

        Raises:
            Refused: another request is.
        """
        with self._changed:
            if stream.in_use:
                raise Refused(409, "the samples before are still being separated; send one request at a time")
            stream.in_use = True
        try:
            yield
        finally:
            with self._changed:
                stream.in_use, stream.asked = False, self._clock()

    def push(self, stream: Stream, samples: bytes) -> bytes:
        """Hear more, within `used`: 16-bit samples of one channel in; interleaved ones out, a channel a talker.

        Raises:
            Refused: it has ended.
        """
        _require_open(stream)
        return as_pcm(stream.live.push(from_pcm(samples)))

    def finish(self, stream: Stream) -> bytes:
        """End a stream, within `used`: the rest of its estimates.

        Raises:
            Refused: it has ended.
        """
        with self._changed:
            self._streams.pop(stream.token, None)
        _require_open(stream)
        stream.ended = True
        return as_pcm(stream.live.finish())

    def _forget_idle(self) -> None:
        now = self._clock()
        for token, stream in list(self._streams.items()):
            if not stream.in_use and now - stream.asked > self.idle:
                del self._streams[token]


def _require_open(stream: Stream) -> None:
    if stream.ended:
        raise Refused(409, "this stream has ended")

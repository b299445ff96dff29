"""Limits of uploads, and the error of a request that is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sepml.errors import SepmlError

_HIGHEST_RATE = 96_000
_MOST_CHANNELS = 4


class Refused(SepmlError):
    """A request that is answered with an error.

    Args:
        status: of HTTP. message: one line.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """Limits of one upload.

    Attributes:
        seconds: of sound.
        size: of the file, bytes.
        samples: of one channel; None is `seconds` at 96 kHz. All channels together may have four times as many.
        ways_out: advice for a visitor beyond a limit, by the limit's name: `seconds`, `size`, `samples`.
    """

    seconds: float = 600.0
    size: int = 50_000_000
    samples: int | None = None
    ways_out: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def most_samples(self) -> int:
        """The samples that a channel may have."""
        return round(self.seconds * _HIGHEST_RATE) if self.samples is None else self.samples

    def check_sound(self, name: str, rate: int, channels: int, frames: int) -> None:
        """Refuse a recording by the samples that its header promises or that were decoded so far.

        Args:
            rate: Hz. frames: samples of a channel.

        Raises:
            Refused: it is too long or has too many samples.
        """
        if frames > self.seconds * rate:
            raise self.refusal("seconds", f"{name}: is longer than {self.seconds:g} s, the longest that is separated here")
        for number, most, what in (
            (frames, self.most_samples, f"samples at {rate} Hz"),
            (frames * channels, self.most_samples * _MOST_CHANNELS, f"samples in {channels} channels at {rate} Hz"),
        ):
            if number > most:
                found = f"{number / 1e6:.1f} million {what}, expected {most / 1e6:.1f} million at most"
                raise self.refusal("samples", f"{name}: holds {found}; resample it")

    def check_size(self, name: str, size: int) -> None:
        """Refuse a file by its bytes.

        Raises:
            Refused: it is too large.
        """
        if size > self.size:
            raise self.refusal("size", f"{name}: is larger than {self.size / 1e6:g} MB")

    def refusal(self, limit: str, message: str) -> Refused:
        """The error that names a limit's way out."""
        way = self.ways_out.get(limit)
        return Refused(413, f"{message}; {way}" if way else message)

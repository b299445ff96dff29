"""Uploads in, sources out: what stands behind the page of `sepml serve`. One separation at a time, the others wait."""

import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio import write_wav
from sepml.speech.pages.pictures import loudest
from sepml.speech.pages.report_audio import player
from sepml.speech.separation.formats import one_channel, open_recording
from sepml.speech.separation.separator import Separator

KEPT = 8
"""Separations whose files can be fetched; older ones are deleted."""
_PLACES = 4


class Busy(SepmlError):
    """As many wait already as may wait."""


class TooLong(SepmlError):
    """A recording is longer than allowed."""


@dataclass(frozen=True)
class Limits:
    """What may be uploaded: seconds of sound, bytes of the file."""

    seconds: float = 600.0
    size: int = 50_000_000


class Workshop:
    """Separates uploads and keeps the files of the last ones in a temporary folder, which goes when it is closed.

    Args:
        separator: of any rate; the outputs have the upload's rate and length.
    """

    def __init__(self, separator: Separator, limits: Limits) -> None:
        self.separator, self.limits = separator, limits
        self._working = threading.Lock()
        self._places = threading.BoundedSemaphore(_PLACES)
        self._results: OrderedDict[str, Path] = OrderedDict()
        self._temporary = TemporaryDirectory(prefix="sepml-serve-", ignore_cleanup_errors=True)

    def close(self, patience: float = 10.0) -> None:
        """Delete everything, after the separation in work has ended or `patience` (s) has."""
        if self._working.acquire(timeout=patience):
            self._working.release()
        self._temporary.cleanup()

    @contextmanager
    def place(self) -> Any:
        """A new path for an upload; the file is deleted when the block ends.

        Raises:
            Busy: no place is free.
        """
        if not self._places.acquire(blocking=False):
            raise Busy(f"{_PLACES} recordings are waiting already; try again in a moment")
        path = Path(self._temporary.name) / f"upload-{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            self._places.release()

    def separate(self, upload: Path, name: str, gone: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Separate an upload.

        Args:
            upload: the file; name: what the user calls it, for messages and downloads.
            gone: asked now and then while others are served; True gives up.

        Returns:
            for the page: `token` of the result, `name`, `rate` (Hz), `seconds`, `note`, and `players`, HTML.

        Raises:
            SepmlError: the upload is no audio, is damaged, or cannot be separated; `TooLong`: it is too long.
        """
        while not self._working.acquire(timeout=0.5):
            if gone():
                raise SepmlError(f"{name}: given up, as nobody waits for it any more")
        try:
            return self._separate(upload, name)
        except SepmlError as error:
            raise type(error)(str(error).replace(str(upload), name)) from error
        finally:
            self._working.release()

    def result(self, token: str, number: str) -> Path | None:
        """The file of a result: 0 is the mixture, 1 and on the speakers; None where there is none."""
        folder = self._results.get(token)
        if folder is None or not (number.isascii() and number.isdigit() and len(number) < 3):
            return None
        path = folder / f"{int(number)}.wav"
        return path if path.is_file() else None

    def _separate(self, upload: Path, name: str) -> dict[str, Any]:
        mixture, rate, note = self._read(upload, name)
        est = self.separator.separate(mixture, rate).numpy()
        peak = float(np.abs(est).max(initial=0))
        if peak > 1:
            est = est / np.float32(peak)
            note = f"{note} The speakers are turned down by {20 * np.log10(peak):.1f} dB to full scale.".strip()
        token = secrets.token_urlsafe(16)
        folder = Path(self._temporary.name) / token
        for number, x in enumerate((mixture, *est)):
            write_wav(folder / f"{number}.wav", x, rate)
        self._results[token] = folder
        while len(self._results) > KEPT:
            shutil.rmtree(self._results.popitem(last=False)[1], ignore_errors=True)
        highest, level = float(np.abs(mixture).max(initial=0)), loudest(mixture, rate)
        names = ["mixture", *(f"speaker {n + 1}" for n in range(len(est)))]
        players = [
            player(label, x, rate, highest, level, f"result/{token}/{number}.wav")
            for number, (label, x) in enumerate(zip(names, (mixture, *est), strict=True))
        ]
        seconds = len(mixture) / rate
        return {"token": token, "name": name, "rate": rate, "seconds": seconds, "note": note, "players": players}

    def _read(self, upload: Path, name: str) -> tuple[np.ndarray, int, str]:
        """The mean of the channels (T,), the rate, and what is to be said about it."""
        with open_recording(upload) as recording:
            most = self.limits.seconds * recording.rate
            blocks, found = [], recording.frames or 0
            for block in one_channel(Path(name), recording, None) if found <= most else ():
                blocks.append(block)
                found = sum(map(len, blocks))
                if found > most:
                    break
            if found > most:
                raise TooLong(f"{name}: is longer than {self.limits.seconds:g} s, the longest that is separated here")
            note = f"The mean of its {recording.channels} channels was separated." if recording.channels > 1 else ""
            return np.concatenate(blocks), recording.rate, note

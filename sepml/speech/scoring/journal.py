"""Scores kept as they are made, so that scoring which was broken off goes on where it stopped."""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sepml.errors import SepmlError
from sepml.speech.results.summary import Unscored, UtteranceScores
from sepml.system.files import write_text
from sepml.system.json_files import parse_json
from sepml.system.limits import MOST_TEXT_BYTES, read_limited
from sepml.system.stamp import Request

NAME = ".scores.journal"
_FORMAT = 2
Stamps = list[list[Any]]


def stamps(files: Iterable[Path]) -> Stamps:
    """What tells whether files have changed: path, size and time of change of each; a file that is absent has none."""
    found: Stamps = []
    for file in files:
        try:
            state = os.stat(file)
            found.append([os.path.abspath(file), state.st_size, state.st_mtime_ns])
        except OSError:
            found.append([os.path.abspath(file), None, None])
    return found


class Journal:
    """Scores of mixtures, one JSON line each, added as they come; a line that was cut off counts as absent.

    Scores are given back only where everything they depend on is as it was: the settings of the whole run (metrics,
    versions, model) and the stamps of the mixture's files.

    Args:
        folder: of the scores.
        settings: what all scores depend on; those of a run with others are thrown away.

    Raises:
        SepmlError: the file cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / NAME
        self._header = json.loads(json.dumps({"format": _FORMAT, **settings}))
        self._rows: dict[str, dict[str, Any]] = {}
        self._file: IO[str] | None = None
        self._read()

    def __enter__(self) -> "Journal":
        # Begun anew with the rows that hold: nothing is added after a line that was cut off.
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in (self._header, *self._rows.values())))
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            # On a full disk, what `add` could not write is tried again here.
            with suppress(OSError):
                self._file.close()

    def get(self, mixture_id: str, files: Stamps) -> UtteranceScores | None:
        """The scores of a mixture that were made from these very files, or None."""
        row = self._rows.get(mixture_id)
        return row_scores(row["scores"]) if row is not None and row["files"] == files else None

    def add(self, scores: UtteranceScores, files: Stamps) -> None:
        """Keep scores.

        Raises:
            SepmlError: the disk is full.
        """
        if self._file is None:
            raise ValueError("the journal is not open")
        try:
            self._file.write(json.dumps({"files": files, "scores": asdict(scores)}) + "\n")
            self._file.flush()
        except OSError as error:
            raise SepmlError(f"{self.path}: cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Delete the file: the scores stand in their table now."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _read(self) -> None:
        try:
            lines = read_limited(self.path, MOST_TEXT_BYTES).decode("utf-8").splitlines()
            if not lines or Request(self._header).answer(parse_json(lines[0], str(self.path))) != "resume":
                return
        except (FileNotFoundError, UnicodeDecodeError, SepmlError):
            return
        for line in lines[1:]:
            with suppress(SepmlError, KeyError, TypeError, AttributeError):
                row = parse_json(line, str(self.path))
                self._rows[row_scores(row["scores"]).mixture_id] = {"files": row["files"], "scores": row["scores"]}


def row_scores(row: Mapping[str, Any]) -> UtteranceScores:
    """Scores from what `dataclasses.asdict` and JSON made of them.

    Raises:
        KeyError, TypeError: they are no scores.
    """
    return UtteranceScores(
        mixture_id=row["mixture_id"],
        permutation=tuple(row["permutation"]),
        values={column: tuple(values) for column, values in row["values"].items()},
        unscored=tuple(Unscored(**item) for item in row["unscored"]),
        surplus=tuple(row["surplus"]),
        fingerprint=row["fingerprint"],
        length_differences=tuple(row["length_differences"]),
    )

"""What all recordings of a run are separated with: separators, settings, and what tells existing outputs from others."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepml.speech.audio.recordings import open_recording
from sepml.speech.audio.signals import Recording, one_channel
from sepml.speech.separation.description import Description, Listener
from sepml.speech.separation.expectation import AgreementTable, table_of
from sepml.speech.separation.inputs import STDIN
from sepml.speech.separation.options import FileSettings, OutputFormat
from sepml.speech.separation.outputs import Provenance, expected_provenance, is_output, provenance_of
from sepml.speech.separation.separators import OneTalker, Separators
from sepml.speech.separation.talkers import TalkerCount
from sepml.system.stamp import WAY_OUT, OtherContent, model_fingerprint

COUNTING, SEPARATING = "counting the talkers in", "separating"
Blocks = Iterator[np.ndarray]
Watch = Callable[[Blocks, Recording, str, str], Blocks]
"""Passes the blocks of a recording on and shows how far it is; the words are `COUNTING` or `SEPARATING`, and its label."""


@dataclass(frozen=True)
class Work:
    """What all recordings of a run are separated with.

    Attributes:
        models: the fingerprint of the separator for each number of talkers.
        tables: its table of expected SI-SNRi, if there is one.
        alone: whether there is one recording.
        watch: shows the progress; None is a line for each recording.
    """

    separators: Separators
    settings: FileSettings
    models: Mapping[int, str]
    tables: Mapping[int, AgreementTable | None]
    alone: bool
    watch: Watch | None

    @classmethod
    def of(cls, separators: Separators, settings: FileSettings, alone: bool, watch: Watch | None = None) -> "Work":
        """With fingerprints and tables of the separators."""
        by_talkers = separators.by_talkers
        models = {talkers: model_fingerprint(separator.models) for talkers, separator in by_talkers.items()}
        # One talker alone has no SI-SNRi.
        tables = {talkers: table_of(one.origin) if talkers > 1 else None for talkers, one in by_talkers.items()}
        return cls(separators, settings, models, tables, alone, watch)

    def made(self, file: Path, output_format: OutputFormat, talkers: int) -> Provenance:
        """The provenance of the outputs of a recording for a number of talkers."""
        separator = self.separators.by_talkers[talkers]
        # Outputs of earlier versions end where the models' band does; where today's do so, too, both must match.
        band = ["full band"] if separator.adds_highs(output_format.rate) else []
        one = ["one talker"] if isinstance(separator, OneTalker) else []
        used = [*self.settings.of_samples(output_format.bits), separator.mixture_consistency, *band, *one]
        return expected_provenance(file, used, self.models[talkers])

    def described(self, listener: Listener, talkers: int) -> Description:
        """The description of a recording with the SI-SNRi to expect."""
        table = self.tables[talkers]
        return table.completed(listener.description()) if table else listener.description()

    def done(self, file: Path, outputs: Sequence[Path]) -> int:
        """The number of talkers whose outputs all exist; 0 where some or all are absent.

        Raises:
            SepmlError: files of these names exist that were made from something else.
        """
        existing = [output for output in outputs if os.path.lexists(output)]
        if not existing:
            return 0
        if file == STDIN:
            raise OtherContent(f"{existing[0]}: already exists, perhaps from another recording; {WAY_OUT}")
        if foreign := [output for output in existing if not is_output(output)]:
            raise OtherContent(f"{foreign[0]}: already exists and was not written by sepml; {WAY_OUT}")
        numbers = self.separators.by_talkers
        # Where the number was not counted yet, outputs were of two talkers; the oldest ones hold no provenance.
        talkers = 2 if 2 in numbers else self.separators.most
        if found := {output: other for output in existing if (other := provenance_of(output))}:
            with open_recording(file) as recording:
                output_format = self.settings.output_format(recording)
            expected = {number: self.made(file, output_format, number) for number in numbers}
            first = next(iter(found.values()))
            talkers = next((number for number in numbers if expected[number] == first), talkers)
            for output, other in found.items():
                if other != expected[talkers]:
                    raise OtherContent(f"{output}: holds an estimate {_difference(other, expected[talkers])}; {WAY_OUT}")
        return talkers if existing == list(outputs[:talkers]) else 0

    def count(self, path: Path, label: str, watch: Watch) -> TalkerCount | None:
        """The number of talkers in a recording, whose progress `watch` shows; None where it is given."""
        counter = self.separators.counter
        if counter is None:
            return None
        with open_recording(path, label) as recording:
            return counter.count(self.blocks(recording, label, COUNTING, watch), recording.rate)

    def blocks(self, recording: Recording, label: str, doing: str, watch: Watch) -> Blocks:
        """The samples of a recording in blocks (t,), whose progress `watch` shows."""
        return watch(one_channel(Path(label), recording, self.settings.channel), recording, doing, label)


def _difference(there: Provenance, expected: Provenance) -> str:
    """In words, what an existing estimate was made of and the expected one is not."""
    if there.recording != expected.recording:
        return "of another recording"
    return "by another model" if there.model != expected.model else "made with other settings"


def remove_surplus(outputs: Sequence[Path], made: Provenance) -> None:
    """Delete outputs for more talkers that an earlier run has made of the same recording."""
    for output in outputs:
        if output.is_file() and is_output(output) and (of := provenance_of(output)) and of.recording == made.recording:
            output.unlink()

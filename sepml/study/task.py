"""What a study has to know of the task that its runs are trained for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sepml.errors import SepmlError, did_you_mean
from sepml.study.scores import RunScores
from sepml.training.experiment import Experiment, Machines


@dataclass(frozen=True)
class Measure:
    """What the scores of a test are.

    Attributes:
        name: such as `SI-SNRi`; unit: such as `dB`, empty for none.
        item, items: what a row of the scores is, such as `mixture`, and several of them.
        falls: smaller scores are better.
    """

    name: str
    unit: str
    item: str
    items: str
    falls: bool = False

    def with_unit(self, what: str) -> str:
        """Something that is measured, with the unit: `average, dB`."""
        return f"{what}, {self.unit}" if self.unit else what


def measure_named(test: str, measures: Mapping[str, Measure], source: str) -> Measure:
    """The measure of a test.

    Raises:
        SepmlError: there is none of this name.
    """
    if test not in measures:
        raise SepmlError(f"{source}: '{test}' is not measured, expected {', '.join(measures)}{did_you_mean(test, measures)}")
    return measures[test]


@dataclass(frozen=True)
class Wording:
    """What the report of a study says about its scores.

    Attributes:
        scores: what they are: `SI-SNRi of whole mixtures`.
        drawn: what is drawn again with each seed for the two-level interval: `speakers' mixtures`.
        columns: the names of the columns of examples and groups in a file of scores.
        curves: column of history.csv, or the start of it -> the label of its plot; none are those of all tasks.
    """

    scores: str
    drawn: str
    columns: tuple[str, str] = ("example", "group")
    curves: Mapping[str, str] = field(default_factory=dict)


class StudyTask(Protocol):
    """A task whose experiments a study trains and scores. It is sent to other processes.

    Attributes:
        wording: of the report.
    """

    @property
    def wording(self) -> Wording: ...  # noqa: D102

    def parse(self, settings: dict[str, Any], source: str) -> Experiment:
        """An experiment from its settings, all of its rules tested.

        Args:
            source: where they come from, for messages.
        """
        ...

    def restore(self, settings: dict[str, Any], source: str) -> Experiment:
        """An experiment from all of its settings, as a finished run notes them; those of later versions have their defaults."""
        ...

    def train(self, settings: dict[str, Any], source: str, exp: Path, machines: Machines) -> None:
        """Train an experiment in a folder, or go on with it."""
        ...

    def measure(self, test: str, source: str) -> Measure:
        """What a test measures, by its value in the study's file.

        Raises:
            SepmlError: there is no such test.
        """
        ...

    def lists(self, experiment: Any, tests: Mapping[str, str], source: str) -> dict[str, Path]:
        """The lists of the data that decide a run's result, a name for each; those that are there.

        Args:
            tests: name -> value in the study's file.

        Raises:
            SepmlError: what a test needs is absent.
        """
        ...

    def score(self, exp: Path, experiment: Any, tests: Mapping[str, str], device: str) -> dict[str, RunScores]:
        """The scores of a trained experiment, by the name of the test."""
        ...

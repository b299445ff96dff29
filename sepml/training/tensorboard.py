"""The history of a run for TensorBoard, where that is installed."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sepml.mutual import Task
from sepml.training.history import EpochRow

log = logging.getLogger(__name__)


class TensorBoardLog:
    """One event file in `tensorboard/` that holds all epochs of a run, also those of earlier starts.

    The file is created with the first epoch that is written, and replaces the event files that were there.

    Args:
        exp: the folder of the run.
        wanted: False: nothing is written. True without the package: that is logged, and nothing is written.
    """

    def __init__(self, exp: Path, wanted: bool) -> None:
        self.folder = exp / "tensorboard"
        self._make: Any = None
        self._writer: Any = None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._make = SummaryWriter
            except ImportError:
                log.info(
                    "fit.tensorboard is true, but tensorboard is not installed: history.csv alone has the figures "
                    "(pip install 'sepml[train]' for both)"
                )

    def __enter__(self) -> "TensorBoardLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer:
            self._writer.close()

    def write(self, history: Sequence[EpochRow], task: Task) -> None:
        """Add the rows of the last epoch of a history; with the first call, those of all epochs."""
        if not self._make:
            return
        if self._writer:
            self._add([row for row in history if row.epoch == history[-1].epoch], task)
            return
        # Later than the workers of a data loader are forked: a writer has a thread.
        earlier = list(self.folder.glob("events.out.tfevents.*"))
        self._writer = self._make(str(self.folder))
        self._add(history, task)
        for file in earlier:
            file.unlink()

    def _add(self, rows: Sequence[EpochRow], task: Task) -> None:
        for row in rows:
            for name, value in row.columns(task).items():
                if isinstance(value, float) and math.isfinite(value):
                    self._writer.add_scalar(f"{name}/peer{row.network}", value, row.epoch)
        self._writer.flush()

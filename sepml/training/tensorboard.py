"""The history of a run for TensorBoard, where that is installed."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)


class TensorBoardLog:
    """One event file in `tensorboard/` that holds all epochs of a run, those of earlier starts, too.

    The file is made with the first epoch that is written, and takes the place of the event files that were there.

    Args:
        exp: the folder of the run.
        wanted: False: nothing is written. True without the package: says so, and nothing is written.
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
                    "(pip install 'sepml[tensorboard]' for both)"
                )

    def __enter__(self) -> "TensorBoardLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer:
            self._writer.close()

    def write(self, history: Sequence[dict[str, Any]]) -> None:
        """Add what is new since the last call: of a history, one row a network and epoch, the last epoch's rows."""
        if not self._make:
            return
        last = history[-1]["epoch"]
        if self._writer:
            self._add([row for row in history if row["epoch"] == last])
            return
        # Later than the workers of a data loader are forked: a writer has a thread.
        earlier = list(self.folder.glob("events.out.tfevents.*"))
        self._writer = self._make(str(self.folder))
        self._add(history)
        for file in earlier:
            file.unlink()

    def _add(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            for name, value in row.items():
                if isinstance(value, float) and math.isfinite(value):
                    self._writer.add_scalar(f"{name}/peer{row['peer']}", value, row["epoch"])
        self._writer.flush()

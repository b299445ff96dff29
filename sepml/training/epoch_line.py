"""The line that is logged about an epoch."""

import logging
import math
from collections.abc import Mapping, Sequence

from sepml.training.history import EpochRow

log = logging.getLogger(__name__)
_NAMED = 5


def log_epoch(epoch: str, rows: list[EpochRow], seconds: float, not_finite: Mapping[str, Sequence[str]]) -> None:
    """Log one line about an epoch.

    Args:
        not_finite: `training` and `validation` -> names of the examples without a finite loss or score.
    """
    parts = [_text_of(row) for row in rows]
    parts += [f"not finite in {where}: {some(names)}" for where, names in not_finite.items() if names]
    log.info("epoch %s (%.0f s): %s", epoch, seconds, "; ".join(parts))


def _text_of(row: EpochRow) -> str:
    text = f"peer {row.network}: train {row.train_loss:.2f}, valid {row.score:.2f}"
    if not math.isnan(row.gate_open):
        text += f", gate open {row.gate_open:.0%}"
    return text + (f", {row.skipped} step{'s' * (row.skipped != 1)} skipped" if row.skipped else "")


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")

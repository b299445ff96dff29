"""The folder of an experiment: whether a run may begin or go on in it."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from sepml.config import DEFAULT_TASK, parse, read_yaml
from sepml.errors import SepmlError
from sepml.system.json_files import read_object
from sepml.system.lock import NAME as LOCK
from sepml.system.stamp import WAY_OUT, Request, require_own
from sepml.system.temporaries import contents
from sepml.training.checkpoint import has_state

CONFIG, ENVIRONMENT = "config.yaml", "environment.json"
EFFECTIVE_BATCH = "effective_batch"
_BATCH_SIZE = "data.batch_size"
# A run may go on with other values of these; with any other change it would be another experiment.
_MAY_CHANGE = {
    "fit.epochs",
    "fit.early_stop",
    "fit.max_skipped",
    "fit.tensorboard",
    "data.workers",
    "data.root",
    "data.moved_to",
    # What must stay is the effective batch, over all processes.
    _BATCH_SIZE,
}
log = logging.getLogger(__name__)


class _Batches(Protocol):
    @property
    def batch_size(self) -> int: ...


class Batched(Protocol):
    """Settings with examples a step and process."""

    @property
    def data(self) -> _Batches: ...  # noqa: D102


def effective_batch(experiment: Batched, processes: int) -> int:
    """Examples a step over all processes."""
    return experiment.data.batch_size * processes


def claim(exp: Path, experiment: Any, processes: int) -> bool:
    """Refuse a folder that holds another experiment, or anything that is not one. To be called under its lock.

    Args:
        experiment: the settings that are to be trained with.
        processes: that train.

    Returns:
        whether a run goes on there: until something has been learnt, all settings may change.

    Raises:
        SepmlError: the folder holds something else.
    """
    if not (exp / CONFIG).exists():
        require_own(exp, "a run", CONFIG, [name for name in contents(exp) if name != LOCK])
        return False
    if not has_state(exp):
        return False
    # Parsed, so that a setting which the file does not know yet has its default; another task's cannot be.
    content = read_yaml(exp / CONFIG)
    same_task = content.get("task", DEFAULT_TASK) == experiment.task
    was = parse(type(experiment), content, str(exp / CONFIG)) if same_task else None
    settings = {"task": DEFAULT_TASK, **(content if was is None else plain(was))}
    request = Request(plain(experiment), _MAY_CHANGE)
    request.claim(exp, "a run", settings)
    _require_same_batch(exp, was, experiment, processes)
    for key, (was_there, now) in request.changes(settings).items():
        log.info("%s: going on with %s = %s, was %s", exp, key, now, was_there)
    return True


def plain(experiment: Any) -> dict[str, Any]:
    """The settings of an experiment as YAML can hold them."""

    def of(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: of(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [of(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return of(asdict(experiment))


def _require_same_batch(exp: Path, was: Any, experiment: Batched, processes: int) -> None:
    try:
        before = read_object(exp / ENVIRONMENT)[EFFECTIVE_BATCH]
    except (FileNotFoundError, SepmlError, KeyError):
        # Earlier versions did not write it down: as many processes as now are assumed.
        before = effective_batch(was, processes)
    now = effective_batch(experiment, processes)
    if before != now:
        fits = before // processes if isinstance(before, int) and before % processes == 0 else 0
        hint = f"go on with {_BATCH_SIZE} = {fits}, " if fits else ""
        counted = f"{_BATCH_SIZE} {experiment.data.batch_size} x {processes} processes" if processes > 1 else _BATCH_SIZE
        raise SepmlError(
            f"{exp}: holds a run with an effective batch of {before} examples, now {now} ({counted}); {hint}{WAY_OUT}"
        )

"""The folder of an experiment: whether a run may begin or go on in it, and on which machines it trained."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from sepml.config import DEFAULT_TASK, parse, read_yaml
from sepml.errors import SepmlError
from sepml.system.files import write_json
from sepml.system.readers import read_object
from sepml.system.stamp import LOCK, WAY_OUT, Request, require_own
from sepml.system.temporaries import contents
from sepml.training.checkpoint import has_state

CONFIG, ENVIRONMENT = "config.yaml", "environment.json"
EFFECTIVE_BATCH = "effective_batch"
_BATCH_SIZE = "data.batch_size"
_CONTINUED = "continued_on"
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


def claim_run(exp: Path, experiment: Any, processes: int) -> bool:
    """Refuse a folder that holds another experiment, or anything else. To be called under its lock.

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
    settings = {"task": DEFAULT_TASK, **(content if was is None else plain_settings(was))}
    request = Request(plain_settings(experiment), _MAY_CHANGE)
    request.claim(exp, "a run", settings)
    _require_same_batch(exp, was, experiment, processes)
    for key, (was_there, now) in request.changes(settings).items():
        log.info("%s: going on with %s = %s, was %s", exp, key, now, was_there)
    return True


def record_environment(exp: Path, facts: dict[str, Any], goes_on: bool) -> None:
    """Write `environment.json`: the facts of the machine on which the run began.

    A run that goes on elsewhere adds those of the later machine to the list `continued_on`; equal ones in a row are one.

    Args:
        facts: about this machine.
        goes_on: whether a run goes on in the folder.
    """
    file = exp / ENVIRONMENT
    first = facts
    if goes_on:
        try:
            first = read_object(file)
        except (FileNotFoundError, SepmlError) as error:
            if isinstance(error, SepmlError):
                log.warning("%s; it is written again, for this machine", error)
    before = {name: value for name, value in first.items() if name != _CONTINUED}
    # Earlier versions did not write it.
    before.setdefault(EFFECTIVE_BATCH, facts[EFFECTIVE_BATCH])
    later = first.get(_CONTINUED)
    later = later if isinstance(later, list) else []
    if facts != (later[-1] if later else before):
        later = [*later, facts]
    write_json(file, {**before, **({_CONTINUED: later} if later else {})})


def plain_settings(experiment: Any) -> dict[str, Any]:
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

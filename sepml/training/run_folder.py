"""The folder of a run: whether an experiment may go on in it, and the facts of the machines on which it ran."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sepml.config import DEFAULT_TASK, parse, read_yaml
from sepml.errors import SepmlError
from sepml.system.files import write_json
from sepml.system.process import LOCK
from sepml.system.readers import read_object
from sepml.system.stamp import WAY_OUT, Request, require_own
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
    # The effective batch, over all processes, must stay the same.
    _BATCH_SIZE,
}
log = logging.getLogger(__name__)


def claim_run(exp: Path, experiment: Any, shares: int) -> bool:
    """Refuse a folder that holds another experiment, or anything else. The caller holds its lock.

    Args:
        experiment: the settings to train with.
        shares: of the data, each of which has a batch in a step.

    Returns:
        whether a run continues there; before its first epoch has ended, all settings may change.

    Raises:
        SepmlError: the folder holds something else.
    """
    if not (exp / CONFIG).exists():
        require_own(exp, "a run", CONFIG, [name for name in contents(exp) if name != LOCK])
        return False
    if not has_state(exp):
        return False
    # Parsed, so that settings which the file lacks have their defaults; those of another task cannot be parsed.
    content = read_yaml(exp / CONFIG)
    same_task = content.get("task", DEFAULT_TASK) == experiment.task
    was = parse(type(experiment), content, str(exp / CONFIG)) if same_task else None
    settings = {"task": DEFAULT_TASK, **(content if was is None else plain_settings(was))}
    request = Request(plain_settings(experiment), _MAY_CHANGE)
    request.claim(exp, "a run", settings)
    _require_same_batch(exp, was, experiment, shares)
    for key, (was_there, now) in request.changes(settings).items():
        log.info("%s: going on with %s = %s, was %s", exp, key, now, was_there)
    return True


def record_environment(exp: Path, facts: dict[str, Any], goes_on: bool) -> None:
    """Write `environment.json`: the facts of the machine on which the run began.

    A run that continues on another machine appends its facts to the list `continued_on`.

    Args:
        facts: about this machine.
        goes_on: whether a run continues in the folder.
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


def _require_same_batch(exp: Path, was: Any, experiment: Any, shares: int) -> None:
    try:
        before = read_object(exp / ENVIRONMENT)[EFFECTIVE_BATCH]
    except (FileNotFoundError, SepmlError, KeyError):
        # Earlier versions did not record it: the same number of shares is assumed.
        before = was.data.batch_size * shares
    now = experiment.data.batch_size * shares
    if before != now:
        fits = before // shares if isinstance(before, int) and before % shares == 0 else 0
        hint = f"go on with {_BATCH_SIZE} = {fits}, " if fits else ""
        counted = f"{_BATCH_SIZE} {experiment.data.batch_size} x {shares} processes" if shares > 1 else _BATCH_SIZE
        raise SepmlError(
            f"{exp}: holds a run with an effective batch of {before} examples, now {now} ({counted}); {hint}{WAY_OUT}"
        )

"""Resuming a run: its state is checked and loaded into its networks and optimisers."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from sepml.errors import SepmlError
from sepml.training.checkpoint import LAST, PREVIOUS, RunState, adopt_previous, load_state, require_part, way_out
from sepml.training.history import EpochRow, Progress
from sepml.training.lightning import Fabric
from sepml.training.model_folder import check_weights, is_plain_tensor

log = logging.getLogger(__name__)
_OF_A_WEIGHT: dict[type[Optimizer], dict[str, bool]] = {
    Adam: {"step": False, "exp_avg": True, "exp_avg_sq": True},
    SGD: {"momentum_buffer": True},
}
"""The state that optimisers keep for a weight, and whether it has the weight's shape."""


def resume(
    folder: Path, networks: Sequence[nn.Module], optimizers: Sequence[Optimizer | None], epochs: int, fabric: Fabric
) -> Progress:
    """Load the state of a run into its networks and optimisers; without one, the run begins.

    Where `last.ckpt` is damaged, the state before it replaces it, with a warning.

    Raises:
        SepmlError: the state cannot be read, or is not one of these networks and optimisers.
    """
    loaded = load_state(folder)
    if loaded is None:
        return Progress(0, [], [0] * len(networks))
    state, reason = loaded
    file = folder / (LAST if reason is None else PREVIOUS)
    try:
        history = check_state(state, networks, optimizers)
    except (ValueError, SepmlError) as error:
        raise SepmlError(f"{file}: not a state of this run: {error}; {way_out(file)}") from error
    for network, optimizer, weights, moments in zip(networks, optimizers, state.peers, state.optimizers, strict=True):
        network.load_state_dict(weights)
        # Settings come from the experiment, and the learning rate from its schedule.
        if optimizer is not None:
            optimizer.load_state_dict({"state": moments["state"], "param_groups": optimizer.state_dict()["param_groups"]})
    # All processes have read it.
    fabric.barrier()
    if fabric.is_global_zero:
        if reason is not None:
            log.warning("%s: %s; going on from the state before it, after epoch %d", folder / LAST, reason, state.epoch)
            adopt_previous(folder)
        elif state.epoch < epochs:
            log.info("%s: going on after epoch %d of %d", file, state.epoch, epochs)
        else:
            log.info("%s: complete after epoch %d; a larger fit.epochs goes on", file, state.epoch)
    return Progress(state.epoch, history, state.skipped, state.gate_history, state.teaching)


def check_state(state: RunState, networks: Sequence[nn.Module], optimizers: Sequence[Optimizer | None]) -> list[EpochRow]:
    """Refuse a state that is not one of these networks and optimisers.

    Returns:
        its history.

    Raises:
        ValueError, SepmlError: a part has another type, shape or number, or is nan.
    """
    count = len(networks)
    for name in ("peers", "optimizers", "skipped"):
        found = len(getattr(state, name))
        require_part(name, found, found == count, f"{count} of them")
    history = _history_of(state, count)
    for number, (weights, network) in enumerate(zip(state.peers, networks, strict=True)):
        check_weights(network, weights, f"'peers.{number}'")
    for number, (moments, optimizer) in enumerate(zip(state.optimizers, optimizers, strict=True)):
        _check_moments(f"optimizers.{number}", moments, optimizer)
    past = state.gate_history
    is_table = past is None or (is_plain_tensor(past) and past.is_floating_point() and past.ndim == 2)
    require_part("gate_history", past, is_table, "a table of floats")
    if state.teaching is not None:
        _check_teaching(state.teaching, networks)
    return history


def _check_teaching(teaching: Any, networks: Sequence[nn.Module]) -> None:
    is_whole = isinstance(teaching, dict) and teaching.keys() == {"averages", "history"}
    averages = teaching["averages"] if is_whole else None
    is_whole = isinstance(averages, list) and len(averages) == len(networks)
    require_part("teaching", teaching, is_whole, f"the history and the averages of {len(networks)} networks")
    for number, (weights, network) in enumerate(zip(teaching["averages"], networks, strict=True)):
        check_weights(network, weights, f"'teaching.averages.{number}'")
    past = teaching["history"]
    require_part("teaching.history", past, past is None or (is_plain_tensor(past) and past.ndim == 2), "a table of floats")


def _history_of(state: RunState, networks: int) -> list[EpochRow]:
    order = [(row.get("epoch"), row.get("peer")) for row in state.history]
    if len(order) != state.epoch * networks or order != [(n // networks + 1, n % networks + 1) for n in range(len(order))]:
        raise ValueError(f"'epoch' is {state.epoch}, but 'history' has no row for each epoch and network, in order")
    return [EpochRow.from_columns(row, f"history.{number}") for number, row in enumerate(state.history)]


def _check_moments(what: str, moments: dict[str, Any], optimizer: Optimizer | None) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]] if optimizer else []
    kept = _OF_A_WEIGHT.get(type(optimizer)) if optimizer else None
    require_part(f"{what}.state", moments.get("state"), isinstance(moments.get("state"), dict), "a dictionary")
    for number, values in moments["state"].items():
        where = f"{what}.state.{number}"
        if type(number) is not int or not 0 <= number < len(weights):
            raise ValueError(f"'{where}' is of no weight: the network has {len(weights)}")
        require_part(where, values, isinstance(values, dict), "a dictionary")
        if kept is None or not values:
            continue
        if values.keys() != kept.keys():
            found = ", ".join(sorted(map(str, values)))
            raise ValueError(f"'{where}' has {found}, {type(optimizer).__name__} keeps {', '.join(sorted(kept))}")
        for name, value in values.items():
            require_part(f"{where}.{name}", value, is_plain_tensor(value) and value.is_floating_point(), "a tensor of floats")
            shape = tuple(weights[number].shape) if kept[name] else ()
            if tuple(value.shape) != shape or value.isnan().any():
                raise ValueError(f"'{where}.{name}' is {tuple(value.shape)} or holds nan, expected {shape} without")

"""Training on a device without 64-bit floats, and what a run leaves for TensorBoard."""

import logging
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from linear_task import Sure, linear
from linear_training import SGD, trained
from torch import Tensor

from sepml.speech import losses
from sepml.speech.losses import upit_si_snr
from sepml.training.settings import CohortSettings

NO_DOUBLES = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."


class OnMps(Tensor):
    """On the CPU, but as on Apple's GPUs there are no 64-bit floats, and what is made of it is there as well."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})
        if func is Tensor.cpu:
            return result.as_subclass(Tensor)
        if isinstance(result, Tensor) and result.dtype == torch.float64:
            raise TypeError(NO_DOUBLES)
        return result


class Mps(Fabric):
    """Brings everything to its device before it is reduced."""

    def all_reduce(self, data: Tensor, group: Any = None, reduce_op: Any = "mean") -> Tensor:
        if data.dtype == torch.float64:
            raise TypeError(NO_DOUBLES)
        return super().all_reduce(data, group, reduce_op)


class ScoredThere(Sure):
    def score(self, prediction: Tensor, batch: dict) -> Tensor:
        return super().score(prediction, batch).as_subclass(OnMps)


def test_a_device_without_64_bit_floats_trains_as_any_other(tmp_path):
    histories = []
    for name, task, kind in (("cpu", Sure(), Fabric), ("mps", ScoredThere(), Mps)):
        fabric = kind(accelerator="cpu", devices=1)
        rows = trained(tmp_path / name, task, linear(2, size=4), replace(SGD, epochs=2), CohortSettings("ml"), fabric)
        histories.append([replace(row, examples_per_s=0.0) for row in rows])
    assert repr(histories[0]) == repr(histories[1]) and len(histories[0]) == 4


def test_many_sources_are_matched_on_a_device_without_64_bit_floats(monkeypatch):
    monkeypatch.setattr(losses, "_WITHOUT_64_BITS", {"cpu"})
    sources = torch.randn(2, 5, 400, generator=torch.Generator().manual_seed(0))
    assert float(upit_si_snr(sources.flip(1).as_subclass(OnMps), sources).min()) > 79


# TensorBoard.


def test_a_run_leaves_one_event_file_however_often_it_is_started(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "run/tensorboard"
    for epochs in (3, 5, 5):
        settings = replace(SGD, epochs=epochs, tensorboard=True)
        rows = trained(tmp_path / "run", Sure(), linear(2, size=4), settings, CohortSettings("ml"))
        assert len(list(folder.iterdir())) == 1
        events = accumulator.EventAccumulator(str(folder))
        events.Reload()
        logged = events.Scalars("valid_negative_squared/peer2")
        assert [event.step for event in logged] == list(range(1, epochs + 1))
        expected = [row.score for row in rows if row.network == 2]
        assert [event.value for event in logged] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("wanted", [True, False])
def test_tensorboard_that_is_not_installed_is_said_once(tmp_path, monkeypatch, caplog, wanted):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.INFO, "sepml"):
        settings = replace(SGD, epochs=3, tensorboard=wanted)
        trained(tmp_path / "run", Sure(), linear(1, size=4), settings, CohortSettings("solo"))
    assert caplog.text.count("tensorboard is not installed") == wanted
    assert not (tmp_path / "run/tensorboard").exists()

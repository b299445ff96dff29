"""Asteroid's own models, as its checkpoints describe them."""

import warnings
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import Field
from torch import nn

from sepml.errors import SepmlError
from sepml.speech.models.config import Rate, Size, Sources
from sepml.training.hardware import bounded

AsteroidName = Literal["ConvTasNet", "DPRNNTasNet", "DPTNet", "LSTMTasNet", "SuDORMRFImprovedNet", "SuDORMRFNet"]
_BANKS = ("free", "freefb", "stft", "stftfb", "analytic_free", "analyticfreefb", "param_sinc", "paramsincfb")
_NORMS = ("gln", "cln", "cgln", "fgln", "bn", "globln", "chanln", "cumln", "featsglobln", "batchnorm")
_ACTIVATIONS = ("linear", "relu", "prelu", "leaky_relu", "sigmoid", "softmax", "tanh", "gelu", "swish")
_NAMES = {*_BANKS, *_NORMS, *_ACTIVATIONS, "rnn", "lstm", "gru"}


@dataclass(frozen=True)
class AsteroidConfig:
    """One of Asteroid's own models as its checkpoint describes it; not for training here.

    Attributes:
        sample_rate: Hz. window: of the encoder, samples; shorter mixtures are padded to it.
        network: the class in `asteroid.models`. arguments: of its constructor (the checkpoint's `model_args`).
    """

    network: AsteroidName
    n_src: Sources
    sample_rate: Rate
    window: Size
    arguments: Annotated[dict[str, bool | int | float | str | None], Field(max_length=100)] = field(default_factory=dict)
    kind: Literal["asteroid"] = "asteroid"

    @property
    def stride(self) -> int | None:
        """The hop of the encoder, samples, as `arguments` give it; None where they do not."""
        stride = self.arguments.get("stride")
        return stride if isinstance(stride, int) and stride > 0 else None


def asteroid_network(name: AsteroidName, arguments: dict[str, Any]) -> nn.Module:
    """One of Asteroid's models with fresh weights, fused.

    Raises:
        SepmlError: the name is unknown, or the arguments do not fit the network.
    """
    from asteroid import models

    from sepml.speech.models.fused import fuse

    if name not in get_args(AsteroidName):
        raise SepmlError(f"network is {name!r}, expected one of {', '.join(get_args(AsteroidName))}")
    # Asteroid looks names up among all objects of its modules, so that a file could name any function there.
    for key, value in arguments.items():
        if isinstance(value, str) and value.lower() not in _NAMES:
            raise SepmlError(f"{name}: {key} is {value!r}, no filterbank, norm or activation that is known here")
    try:
        with warnings.catch_warnings(), bounded(name):
            warnings.simplefilter("ignore")
            return fuse(getattr(models, name)(**arguments))
    except SepmlError:
        raise
    # Asteroid does not check its arguments: any error can occur, from a division by zero to a missing attribute.
    except Exception as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SepmlError(f"{name} cannot be made with these arguments: {cause}") from error

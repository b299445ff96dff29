"""All kinds of networks: their configurations, and what builds and bounds each."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from torch import nn

from sepml.speech.models.asteroid_network import AsteroidConfig
from sepml.speech.models.convtasnet import ConvTasNetConfig, build_convtasnet, largest_of_convtasnet
from sepml.speech.models.dprnn import DPRNNConfig, build_dprnn, largest_of_dprnn
from sepml.speech.models.dptnet import DPTNetConfig, build_dptnet, largest_of_dptnet
from sepml.speech.models.sepformer import SepFormerConfig, build_sepformer, largest_of_sepformer
from sepml.speech.models.skim import SkiMConfig, build_skim, largest_of_skim
from sepml.speech.models.tiger import TIGERConfig, build_tiger, largest_of_tiger


class Backbone(NamedTuple):
    """A kind of network.

    Attributes:
        config: its configuration, a frozen dataclass with fields `kind`, `n_src`, `sample_rate` and `window`.
        build: from a configuration to a network with fresh weights, mixtures `(B, T)` to `(B, n_src, T)`.
        largest_layer: about how many values its largest layer has for a second of audio.
    """

    config: type
    build: Callable[[Any], nn.Module]
    largest_layer: Callable[[Any], int]


BACKBONES = {
    "dprnn": Backbone(DPRNNConfig, build_dprnn, largest_of_dprnn),
    "convtasnet": Backbone(ConvTasNetConfig, build_convtasnet, largest_of_convtasnet),
    "dptnet": Backbone(DPTNetConfig, build_dptnet, largest_of_dptnet),
    "sepformer": Backbone(SepFormerConfig, build_sepformer, largest_of_sepformer),
    "skim": Backbone(SkiMConfig, build_skim, largest_of_skim),
    "tiger": Backbone(TIGERConfig, build_tiger, largest_of_tiger),
}
"""By the `kind` of a configuration."""
ModelConfig = Annotated[
    DPRNNConfig | ConvTasNetConfig | DPTNetConfig | SepFormerConfig | SkiMConfig | TIGERConfig, Field(discriminator="kind")
]
"""A configuration that can be trained."""
AnyConfig = Annotated[
    DPRNNConfig | ConvTasNetConfig | DPTNetConfig | SepFormerConfig | SkiMConfig | TIGERConfig | AsteroidConfig,
    Field(discriminator="kind"),
]
"""A configuration that a model folder can hold."""

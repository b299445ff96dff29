"""SpeechBrain's own modules, and folders as it publishes its SepFormers, with small networks of random weights."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SETTINGS = """\
# Model: inference for source separation
sample_rate: 8000
num_spks: 2
N_encoder_out: 8
out_channels: 8
kernel_size: 16
kernel_stride: 8

Encoder: !new:speechbrain.lobes.models.dual_path.Encoder
    kernel_size: !ref <kernel_size>
    out_channels: !ref <N_encoder_out>

SBtfintra: !new:speechbrain.lobes.models.dual_path.SBTransformerBlock
    num_layers: 2
    d_model: !ref <out_channels>
    nhead: 2
    d_ffn: 12
    dropout: 0
    use_positional_encoding: true
    norm_before: true

SBtfinter: !new:speechbrain.lobes.models.dual_path.SBTransformerBlock
    num_layers: 2
    d_model: !ref <out_channels>
    nhead: 2
    d_ffn: 12
    dropout: 0
    use_positional_encoding: true
    norm_before: true

MaskNet: !new:speechbrain.lobes.models.dual_path.Dual_Path_Model
    num_spks: !ref <num_spks>
    in_channels: !ref <N_encoder_out>
    out_channels: !ref <out_channels>
    num_layers: 2
    K: 20
    intra_model: !ref <SBtfintra>
    inter_model: !ref <SBtfinter>
    norm: ln
    linear_layer_after_inter_intra: false
    skip_around_intra: true

Decoder: !new:speechbrain.lobes.models.dual_path.Decoder
    in_channels: !ref <N_encoder_out>
    out_channels: 1
    kernel_size: !ref <kernel_size>
    stride: !ref <kernel_stride>
    bias: false

modules:
    encoder: !ref <Encoder>
    decoder: !ref <Decoder>
    masknet: !ref <MaskNet>

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        masknet: !ref <MaskNet>
        encoder: !ref <Encoder>
        decoder: !ref <Decoder>
"""
CHANNELS, HIDDEN, WINDOW, TALKERS, LAYERS, BLOCKS = 8, 12, 16, 2, 2, 2


def of_speechbrain(name: str) -> Any:
    """A module of SpeechBrain; the test is skipped where it is not installed.

    It leaves modules behind that are imported when anybody asks for an attribute, which fails for packages that are absent.
    Others that look through all modules, as for the lines of a traceback, would fail by them.
    """
    module = pytest.importorskip(name, reason="speechbrain is not installed")
    for key in [key for key, each in sys.modules.items() if "LazyModule" in {kind.__name__ for kind in type(each).__mro__}]:
        del sys.modules[key]
    return module


def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """The names and shapes of the weights of each part, as SpeechBrain's own modules have them."""
    c, h = CHANNELS, HIDDEN
    mask: dict[str, tuple[int, ...]] = {
        "norm.weight": (c,),
        "norm.bias": (c,),
        "conv1d.weight": (c, c, 1),
        "prelu.weight": (1,),
    }
    mask |= {"conv2d.weight": (c * TALKERS, c, 1, 1), "conv2d.bias": (c * TALKERS,), "end_conv1x1.weight": (c, c, 1)}
    for name in ("output.0", "output_gate.0"):
        mask |= {f"{name}.weight": (c, c, 1), f"{name}.bias": (c,)}
    layer: dict[str, tuple[int, ...]] = {
        "self_att.att.in_proj_weight": (3 * c, c),
        "self_att.att.in_proj_bias": (3 * c,),
        "self_att.att.out_proj.weight": (c, c),
        "self_att.att.out_proj.bias": (c,),
        "pos_ffn.ffn.0.weight": (h, c),
        "pos_ffn.ffn.0.bias": (h,),
        "pos_ffn.ffn.3.weight": (c, h),
        "pos_ffn.ffn.3.bias": (c,),
    }
    layer |= {f"{norm}.norm.{what}": (c,) for norm in ("norm1", "norm2") for what in ("weight", "bias")}
    for block in range(BLOCKS):
        for path in ("intra", "inter"):
            start = f"dual_mdl.{block}.{path}"
            mask |= {f"{start}_norm.weight": (c,), f"{start}_norm.bias": (c,), f"{start}_mdl.pos_enc.pe": (1, 2500, c)}
            mask |= {f"{start}_mdl.mdl.norm.norm.weight": (c,), f"{start}_mdl.mdl.norm.norm.bias": (c,)}
            mask |= {f"{start}_mdl.mdl.layers.{n}.{name}": of for n in range(LAYERS) for name, of in layer.items()}
    return {"encoder": {"conv1d.weight": (c, 1, WINDOW)}, "masknet": mask, "decoder": {"weight": (c, 1, WINDOW)}}


def write_sepformer(folder: Path, seed: int = 0) -> Path:
    """A folder with settings and weights, and the other files that such a repository has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hyperparams.yaml").write_text(SETTINGS)
    (folder / "config.json").write_text('{"speechbrain_interface": "SepformerSeparation"}')
    generator = torch.Generator().manual_seed(seed)
    for part, names in shapes().items():
        weights = {name: 0.4 * torch.randn(shape, generator=generator) for name, shape in names.items()}
        torch.save(weights, folder / f"{part}.ckpt")
    return folder

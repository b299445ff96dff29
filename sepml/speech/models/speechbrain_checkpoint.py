"""SepFormers as SpeechBrain publishes them: hyperparams.yaml and the weights of encoder, mask network and decoder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sepml.config import parse
from sepml.errors import SepmlError, shown
from sepml.speech.models.config import HYPERPARAMS, SPEECHBRAIN_PARTS
from sepml.speech.models.model import SeparationModel, published_model
from sepml.speech.models.sepformer import SepFormerConfig
from sepml.system.object_yaml import Described, load_object_yaml
from sepml.training.model_folder import read_weights

_BLOCKS = "speechbrain.lobes.models.dual_path."
_OTHERS = "speechbrain."
"""Its other classes may be described, such as what fetches the weights; nothing is made of them."""
SPEECHBRAIN_NAMES = (
    (r"encoder\.conv1d\.", "encoder."),
    (r"masknet\.norm\.", "norm."),
    (r"masknet\.conv1d\.", "bottleneck."),
    (r"masknet\.dual_mdl\.(\d+)\.intra_norm\.", r"blocks.\1.within_norm."),
    (r"masknet\.dual_mdl\.(\d+)\.inter_norm\.", r"blocks.\1.across_norm."),
    (r"masknet\.dual_mdl\.(\d+)\.intra_mdl\.mdl\.", r"blocks.\1.within."),
    (r"masknet\.dual_mdl\.(\d+)\.inter_mdl\.mdl\.", r"blocks.\1.across."),
    (r"masknet\.prelu\.", "to_sources.0."),
    (r"masknet\.conv2d\.", "to_sources.1."),
    (r"masknet\.output\.0\.", "out."),
    (r"masknet\.output_gate\.0\.", "gate."),
    (r"masknet\.end_conv1x1\.", "to_mask."),
    (r"\.self_att\.att\.in_proj_", ".query_key_value."),
    (r"\.self_att\.att\.out_proj\.", ".projection."),
    (r"\.pos_ffn\.ffn\.0\.", ".wide."),
    (r"\.pos_ffn\.ffn\.3\.", ".narrow."),
    (r"\.(norm[12]?)\.norm\.", r".\1."),
)
"""From SpeechBrain's names, behind that of the part, to those of `SepFormer`."""
_POSITIONS = re.compile(r"masknet\.dual_mdl\.\d+\.int(?:ra|er)_mdl\.pos_enc\.pe")
"""Sinusoids, which are computed here."""


def load_speechbrain(folder: Path, device: str | torch.device = "cpu") -> SeparationModel:
    """Read a SepFormer into a model in evaluation mode that computes what `SepformerSeparation.separate_batch` does.

    No code of the file is run: its settings are read as data, classes by a list of names, weights as tensors alone.

    Raises:
        SepmlError: a file is missing, damaged or holds anything else; the network is another one; or the weights do not fit.
    """
    source = folder / HYPERPARAMS
    config = _config(load_object_yaml(source), str(source))
    parts = {part: read_weights(folder / f"{part}.ckpt") for part in SPEECHBRAIN_PARTS}
    weights = {f"{part}.{name}": value for part, content in parts.items() for name, value in content.items()}
    learnt = {name: value for name, value in weights.items() if not _POSITIONS.fullmatch(name)}
    return published_model(config, learnt, SPEECHBRAIN_NAMES, source, device)


def _config(content: Mapping[str, Any], source: str) -> SepFormerConfig:
    """The network that the settings describe.

    Raises:
        SepmlError: a class is unknown, or an argument is missing, unknown or of a network that is not built here.
    """
    for value in _described(content):
        if not value.name.startswith(_OTHERS):
            raise SepmlError(f"{source}: the class {value.name[:80]} is none of speechbrain's")
    modules = content.get("modules")
    encoder, mask, decoder = (
        _arguments(modules.get(part) if isinstance(modules, dict) else None, name, f"{source}: modules.{part}")
        for part, name in zip(SPEECHBRAIN_PARTS, ("Encoder", "Dual_Path_Model", "Decoder"), strict=True)
    )
    within, across = (
        _arguments(mask.pop(name, None), "SBTransformerBlock", f"{source}: {name}") for name in ("intra_model", "inter_model")
    )
    if within != across:
        raise SepmlError(f"{source}: intra_model and inter_model differ, expected two of the same sizes")
    settings = {
        "n_src": mask.pop("num_spks", None),
        "sample_rate": content.get("sample_rate"),
        "n_filters": encoder.pop("out_channels", None),
        "window": encoder.pop("kernel_size", None),
        "heads": within.pop("nhead", None),
        "hidden": within.pop("d_ffn", None),
        "layers": within.pop("num_layers", None),
        "blocks": mask.pop("num_layers", None),
        "chunk": mask.pop("K", None),
    }
    if absent := [name for name, value in settings.items() if value is None]:
        raise SepmlError(f"{source}: does not say {absent[0]}")
    config = parse(SepFormerConfig, {"kind": "sepformer", "unit_power": False, **settings}, source)
    _require_sepformer(config, source, Encoder=encoder, Dual_Path_Model=mask, SBTransformerBlock=within, Decoder=decoder)
    return config


def _require_sepformer(config: SepFormerConfig, source: str, **arguments: dict[str, Any]) -> None:
    """Refuse arguments of the classes that describe another network than `SepFormer`."""
    channels = {"in_channels": config.n_filters, "out_channels": config.n_filters}
    window = {"kernel_size": config.window, "stride": config.window // 2, "bias": False}
    needed: dict[str, dict[str, Any]] = {
        "Encoder": {},
        "Dual_Path_Model": {**channels, "norm": "ln", "linear_layer_after_inter_intra": False, "skip_around_intra": True},
        "SBTransformerBlock": {"d_model": config.n_filters, "use_positional_encoding": True, "norm_before": True},
        "Decoder": {**channels, "out_channels": 1, **window},
    }
    # Dropout and a limit of the length change nothing here.
    free: dict[str, Any] = {name: of[name] for of in arguments.values() for name in ("dropout", "max_length") if name in of}
    allowed: dict[str, dict[str, Any]] = {
        "Encoder": {"in_channels": 1},
        "Dual_Path_Model": {"use_global_pos_enc": False, **free},
        "SBTransformerBlock": {"activation": "relu", "attention_type": "regularMHA", **free},
        "Decoder": {},
    }
    for name, of in arguments.items():
        for key in sorted(needed[name].keys() | of.keys()):
            expected = {**allowed[name], **needed[name]}.get(key, "none")
            if (key in needed[name] and key not in of) or of[key] != expected:
                found = shown(of[key]) if key in of else "absent"
                raise SepmlError(f"{source}: {key} of {name} is {found}, expected {shown(expected)}")


def _described(value: Any) -> list[Described]:
    """All objects in a value."""
    inside = value.arguments if isinstance(value, Described) else value
    parts = inside.values() if isinstance(inside, Mapping) else inside if isinstance(inside, list) else ()
    return [value] * isinstance(value, Described) + [found for part in parts for found in _described(part)]


def _arguments(value: Any, name: str, where: str) -> dict[str, Any]:
    if not isinstance(value, Described) or value.name != _BLOCKS + name:
        found = value.name[:80] if isinstance(value, Described) else shown(value)
        raise SepmlError(f"{where} is {found}, expected a {name}")
    return dict(value.arguments)

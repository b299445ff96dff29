"""TIGERs as their authors publish them: config.json with the arguments of the constructor, and model.safetensors."""

from pathlib import Path

import torch

from sepml.config import parse
from sepml.errors import SepmlError
from sepml.speech.models.model import SeparationModel, published_model
from sepml.speech.models.tiger import TIGERConfig
from sepml.system.readers import read_object
from sepml.training.model_folder import read_weights

_ARGUMENTS = {
    "out_channels": "channels",
    "in_channels": "hidden",
    "num_blocks": "blocks",
    "upsampling_depth": "depth",
    "att_n_head": "heads",
    "att_hid_chan": "head_channels",
    "win": "window",
    "stride": "stride",
    "num_sources": "n_src",
    "sample_rate": "sample_rate",
}
_UNUSED = {"att_kernel_size", "att_stride"}
TIGER_NAMES = (
    (r"^BN\.", "bands."),
    (r"^mask\.", "masks."),
    (r"^separator\.concat_block\.", "again."),
    (r"^separator\.freq_path\.", "frequency."),
    (r"^separator\.frame_path\.", "time."),
    (r"^(frequency|time)\.0\.", r"\1.scales."),
    (r"^(frequency|time)\.1\.", r"\1.attention."),
    (r"^(frequency|time)\.2\.", r"\1.norm."),
    (r"\.proj_1x1\.conv\.", ".enter.0."),
    (r"\.proj_1x1\.norm\.", ".enter.1."),
    (r"\.proj_1x1\.act\.", ".enter.2."),
    (r"\.spp_dw\.(\d+)\.", r".down.\1."),
    (r"\.loc_glo_fus\.(\d+)\.", r".inject.\1."),
    (r"\.last_layer\.(\d+)\.", r".up.\1."),
    (r"\.local_embedding\.", ".local."),
    (r"\.global_embedding\.", ".coarse."),
    (r"\.global_act\.", ".gate."),
    (r"\.globalatt\.fc1\.", ".whole.0."),
    (r"\.globalatt\.dwconv\.", ".whole.1."),
    (r"\.globalatt\.fc2\.", ".whole.3."),
    (r"\.res_conv\.", ".leave."),
    (r"\.Queries\.", ".queries."),
    (r"\.Keys\.", ".keys."),
    (r"\.Values\.", ".values."),
    (r"\.attn_concat_proj\.", ".join."),
    (r"(\.(?:down|local|coarse|gate|whole)(?:\.\d+)?)\.conv\.", r"\1.0."),
    (r"(\.(?:down|local|coarse|gate|whole)(?:\.\d+)?)\.norm\.", r"\1.1."),
    (r"(\.(?:queries\.\d+|keys\.\d+|values\.\d+|join))\.conv\.", r"\1.0."),
    (r"(\.(?:queries\.\d+|keys\.\d+|values\.\d+|join))\.act\.", r"\1.1."),
    (r"(\.(?:queries\.\d+|keys\.\d+|values\.\d+|join))\.norm\.", r"\1.2."),
)
"""From the authors' names to those of `TIGER`."""


def is_tiger(folder: Path) -> bool:
    """Whether the config.json of a folder holds the arguments of TIGER's constructor."""
    try:
        return {"num_sources", "upsampling_depth", "att_n_head", "win"} <= read_object(folder / "config.json").keys()
    except (FileNotFoundError, SepmlError):
        return False


def load_tiger(folder: Path, device: str | torch.device = "cpu") -> SeparationModel:
    """Read a published TIGER into a model in evaluation mode.

    Raises:
        SepmlError: a file is missing, damaged or holds anything else, or the weights do not fit.
    """
    source, file = folder / "config.json", folder / "model.safetensors"
    settings = read_object(source)
    if unknown := sorted(settings.keys() - _ARGUMENTS.keys() - _UNUSED):
        raise SepmlError(f"{source}: '{unknown[0][:80]}' is no argument of TIGER, expected {', '.join(_ARGUMENTS)}")
    own = {_ARGUMENTS[name]: value for name, value in settings.items() if name in _ARGUMENTS}
    config = parse(TIGERConfig, {"kind": "tiger", "unit_power": False, **own}, str(source))
    return published_model(config, read_weights(file), TIGER_NAMES, source, device)

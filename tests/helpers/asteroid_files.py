"""Checkpoints of Asteroid's networks as their files are published, of small networks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sepml.errors import SepmlError
from sepml.speech.models.asteroid_checkpoint import load_asteroid

TINY = {
    "ConvTasNet": {"n_filters": 8, "bn_chan": 8, "hid_chan": 8, "skip_chan": 8, "n_blocks": 2, "n_repeats": 2},
    "DPRNNTasNet": {"n_filters": 8, "kernel_size": 16, "bn_chan": 8, "hid_size": 4, "n_repeats": 1, "chunk_size": 10},
    "DPTNet": {"n_filters": 8, "n_heads": 2, "ff_hid": 8, "n_repeats": 1, "chunk_size": 10},
    "LSTMTasNet": {"n_filters": 8, "hid_size": 8, "n_layers": 2},
    "SuDORMRFImprovedNet": {"n_filters": 8, "bn_chan": 8, "num_blocks": 1, "upsampling_depth": 3},
    "SuDORMRFNet": {"n_filters": 8, "bn_chan": 8, "num_blocks": 1, "upsampling_depth": 3},
}


def published(name: str = "ConvTasNet", n_src: int = 2, **arguments: object) -> dict[str, object]:
    """What `torch.save(model.serialize(), ...)` of Asteroid writes, with what published files hold beside weights."""
    from asteroid import models

    torch.manual_seed(0)
    network = getattr(models, name)(n_src, **{**TINY[name], **arguments})
    versions = {"torch_version": torch.torch_version.TorchVersion("1.8.0"), "asteroid_version": "0.5.0"}
    metrics = {"si_sdr": np.float64(12.5), "count": np.int64(3), "stoi": np.float32(0.9)}
    return {
        "model_name": name,
        "model_args": network.get_model_args(),
        "state_dict": network.state_dict(),
        "infos": {"software_versions": versions, "final_metrics": metrics},
    }


def save(file: Path, content: object, **options: object) -> Path:
    torch.save(content, file, **options)
    return file


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def refusal(file: Path) -> str:
    with pytest.raises(SepmlError) as caught:
        load_asteroid(file)
    text = str(caught.value)
    assert text.startswith(str(file)) and "\n" not in text and len(text) < 400
    return text.removeprefix(f"{file}: ")

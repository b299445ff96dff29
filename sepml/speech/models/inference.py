"""Estimates of a trained separator."""

import torch
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.speech.models.model import SeparationModel
from sepml.training.hardware import computes_bf16


def estimates(model: SeparationModel, mixture: Tensor, shortest: int = 0, fast: bool = False) -> Tensor:
    """Estimates `(B, n_src, T)` of mixtures `(B, T)`, on the CPU.

    Args:
        shortest: samples; shorter mixtures are padded for the network.
        fast: compute in bfloat16 where the device does, about twice as fast with learned encoders.

    Raises:
        SepmlError: they are not finite, or the device has too little memory.
    """
    samples = mixture.shape[-1]
    padded = nn.functional.pad(mixture, (0, max(0, shortest - samples)))
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=fast and computes_bf16(device.type)):
            est = model(padded.to(device))[..., :samples].float().cpu()
    except torch.OutOfMemoryError as error:
        seconds = mixture.numel() / model.config.sample_rate
        raise SepmlError(f"{device} has too little memory for {seconds:.0f} s at a time; use a shorter segment") from error
    if not est.isfinite().all():
        raise SepmlError("the model gives nan or infinity; its training has diverged or its weights are damaged")
    return est

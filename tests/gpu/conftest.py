"""Tests of what computes on a GPU. `make test-gpu` runs them there; each runs on the CPU as well, in every run of the tests."""

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The device of a test."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA GPU that PyTorch sees")
    return request.param

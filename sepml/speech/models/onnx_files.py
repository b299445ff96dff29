"""Writing and reading ONNX files: modules with names and metadata, without traces of the machine, and sessions on one core."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sepml.errors import SepmlError
from sepml.system.extras import needs_extra

OPSET = 18


def require_name_and_packages(out: Path) -> None:
    """Refuse another name than of an ONNX file, and name a package that is missing.

    Raises:
        SepmlError: either.
    """
    if out.suffix != ".onnx":
        raise SepmlError(f"{out}: expected a name that ends in .onnx")
    with needs_extra("export", "writing ONNX files"):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401


def write_module(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    names: tuple[list[str], list[str]],
    shapes: tuple[dict[int, Any], ...] | None,
    facts: Mapping[str, object],
    file: Path,
) -> None:
    """Write a module with names of its inputs and outputs; facts become metadata."""
    with quiet():
        program: Any = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=names[0],
            output_names=names[1],
            opset_version=OPSET,
            verbose=False,
        )
        _forget_origin(program.model)
        program.model.metadata_props.update({key: str(value) for key, value in facts.items()})
        program.save(file, external_data=False)


@contextmanager
def refusing(name: str, kind: str) -> Iterator[None]:
    """One line about a network of a kind for the exporter's errors, which are of many kinds and whose own text is long."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        cause = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise SepmlError(f"{name}: a model of kind '{kind}' cannot be written as ONNX: {cause}") from error


def _forget_origin(model: Any) -> None:
    """Delete what the exporter notes of each node: paths of this machine, and addresses that differ from run to run."""
    for node in model.graph.all_nodes():
        for part in (node, *node.outputs):
            part.metadata_props.clear()


def session_of(file: Path) -> Any:
    """A file in onnxruntime, with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


@contextmanager
def quiet(name: str = "torch.onnx") -> Iterator[None]:
    """Hide messages of a library, as about optional packages that are not installed."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)

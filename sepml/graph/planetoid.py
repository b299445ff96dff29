"""The citation graphs of Planetoid (Yang et al., ICML 2016), read by torch-geometric once their pickles are found harmless."""

import pickletools
from pathlib import Path

from torch_geometric.data import Data
from torch_geometric.io import read_planetoid_data

from sepml.errors import SepmlError

_PICKLES = ("x", "tx", "allx", "y", "ty", "ally", "graph")
# Names that a file of NumPy arrays, SciPy matrices and lists of neighbours has; with others, a pickle may run any code.
_HARMLESS = {
    *(f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *("numpy ndarray", "numpy dtype", "_codecs encode", "collections defaultdict"),
    *(f"{module} csr_matrix" for module in ("scipy.sparse.csr", "scipy.sparse._csr", "scipy.sparse")),
    *(f"{module} {name}" for module in ("__builtin__", "builtins") for name in ("list", "object", "int")),
    *("copy_reg _reconstructor", "copyreg _reconstructor"),
}


def read_planetoid(root: Path, name: str) -> Data:
    """A citation graph with its public division into training, validation and test nodes.

    Args:
        root: folder of the files `ind.NAME.x` and so on, as their authors distribute them; nothing is fetched.
        name: `cora`, `citeseer` or `pubmed`.

    Raises:
        SepmlError: a file is absent, damaged, or would run code; a feature is not finite; an edge leads to no node.
    """
    for part in _PICKLES:
        _require_harmless(root / f"ind.{name}.{part}")
    if not (index := root / f"ind.{name}.test.index").is_file():
        raise _absent(index)
    try:
        graph = read_planetoid_data(str(root), name)
    # The reader checks nothing: a damaged file can cause any error.
    except Exception as error:
        said = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise SepmlError(f"{root}: the files ind.{name}.* cannot be read as a graph of Planetoid: {said[:200]}") from error
    if not graph.x.isfinite().all():
        raise SepmlError(f"{root}: the files ind.{name}.* hold features that are not finite numbers")
    beyond = graph.edge_index[graph.edge_index >= len(graph.x)]
    if len(beyond):
        node = int(beyond[0])
        raise SepmlError(f"{root / f'ind.{name}.graph'}: has an edge of node {node}, expected 0 to {len(graph.x) - 1}")
    return graph


def _require_harmless(file: Path) -> None:
    """Refuse a pickle that names anything but arrays, sparse matrices and lists."""
    try:
        with file.open("rb") as stream:
            operations = [(operation.name, argument) for operation, argument, _ in pickletools.genops(stream)]
    except FileNotFoundError as error:
        raise _absent(file) from error
    except (OSError, ValueError) as error:
        raise SepmlError(f"{file}: cannot be read as a pickle of Planetoid: {error}") from error
    for name, argument in operations:
        # In later protocols than the published files have, names lie on a stack.
        if name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4") or (name == "GLOBAL" and argument not in _HARMLESS):
            found = str(argument or f"the operation {name}")[:80]
            raise SepmlError(f"{file}: holds {found!r}, expected arrays, sparse matrices and lists alone; it is not read")


def _absent(file: Path) -> SepmlError:
    return SepmlError(f"{file}: no such file, expected Planetoid's; data.root names the folder that holds them")

"""Tasks for mutual learning on graphs."""

from importlib.util import find_spec

from sepml.errors import SepmlError

if find_spec("torch_geometric") is None:
    raise SepmlError("networks for graphs need torch_geometric: pip install 'sepml[graph]'")

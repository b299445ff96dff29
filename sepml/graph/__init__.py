"""Classification of nodes and of graphs as a task for mutual learning."""

from sepml.errors import SepmlError

try:
    import sklearn as sklearn
    import torch_geometric as torch_geometric
except ImportError as error:
    raise SepmlError(f"networks for graphs need {error.name}: pip install 'sepml[graph]'") from error

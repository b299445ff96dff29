"""Tasks for mutual learning on graphs."""

from sepml.system.extras import needs_extra

with needs_extra("graph", "learning on graphs"):
    import torch_geometric as torch_geometric

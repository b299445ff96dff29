"""Studies: one experiment in several variants and seeds, trained, scored and compared with statistics."""

from importlib.util import find_spec

from sepml.system.extras import needs_extra

# Looked for before hours of training, not after.
with needs_extra("study", "a study"):
    for _name in ("matplotlib", "pandas", "statsmodels"):
        if find_spec(_name) is None:
            raise ModuleNotFoundError(name=_name)

"""Studies: one experiment in several variants and seeds, trained, scored and compared with statistics."""

from importlib.util import find_spec

from sepml.errors import SepmlError

# Looked for before hours of training, not after.
for _name in ("matplotlib", "pandas", "statsmodels"):
    if find_spec(_name) is None:
        raise SepmlError(f"studies need {_name}: pip install 'sepml[study]'")

"""Optional packages: where one is missing, one line names the extra of sepml that brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sepml.errors import SepmlError


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Say in one line how to install a package that is imported in the block and is missing.

    Args:
        extra: its name in setup.cfg, such as `train`.
        purpose: what needs the package, such as "training".

    Raises:
        SepmlError: the package is missing, or it is there and cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "sepml"):
            raise
        found = "" if isinstance(error, ModuleNotFoundError) else f", which cannot be imported ({error})"
        raise SepmlError(f"{purpose} needs the package {package}{found}: pip install 'sepml[{extra}]'") from error

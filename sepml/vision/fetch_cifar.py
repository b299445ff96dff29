"""Fetching of CIFAR-10 and CIFAR-100."""

from pathlib import Path
from typing import Literal

from sepml.errors import SepmlError
from sepml.system.archives import unpack_tar
from sepml.system.download import Expected, fetch
from sepml.vision.datasets import CIFAR, ImageDataSettings, read_cifar

_LARGEST_CIFAR = 1 << 29


def prepare_cifar(kind: Literal["cifar10", "cifar100"], out: Path, url: str | None = None, md5: str | None = None) -> Path:
    """Fetch CIFAR-10 or CIFAR-100 into a folder, unless it is there already; its use is free for research.

    Args:
        url, md5: of the archive on a mirror; by default those of torchvision.

    Returns:
        the folder of the data set.

    Raises:
        SepmlError: the archive cannot be fetched, or its checksum or content is wrong.
    """
    source = CIFAR[kind]
    try:
        read_cifar(ImageDataSettings(kind, out))
    except SepmlError:
        archive = out / source.filename
        fetch(url or source.url, archive, Expected(md5=md5 if url else source.tgz_md5))
        try:
            unpack_tar(archive, out, _LARGEST_CIFAR)
        finally:
            archive.unlink()
        read_cifar(ImageDataSettings(kind, out))
    return out / source.base_folder

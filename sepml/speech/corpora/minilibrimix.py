"""MiniLibriMix, 1000 mixtures at 8 kHz from LibriMix for a first training: `sepml prepare librimix --corpus mini`."""

import logging
from pathlib import Path

from sepml.speech.corpora.trees import prepare_librimix_tree
from sepml.system.archives import unpack_zip
from sepml.system.download import Expected, fetch, zenodo_file
from sepml.system.files import write_text

log = logging.getLogger(__name__)
RECORD = "3871592"
NAME = "MiniLibriMix"
LICENCE = """MiniLibriMix, https://zenodo.org/record/3871592, was made of two collections; name both with published models.

LibriSpeech (the utterances), https://www.openslr.org/12
    Creative Commons Attribution 4.0, https://creativecommons.org/licenses/by/4.0/
WHAM! (the noise in noise/, mix_both/ and mix_single/), http://wham.whisper.ai
    Creative Commons Attribution-NonCommercial 4.0, https://creativecommons.org/licenses/by-nc/4.0/
"""


def prepare(out: Path, url: str | None = None, md5: str | None = None) -> list[Path]:
    """Fetch MiniLibriMix into `out/MiniLibriMix` and write `out/mixture_{train,val}_{mix_clean,mix_both}.csv`.

    A download that was stopped goes on where it was; what is unpacked already is not fetched again.

    Args:
        url: of the zip archive on a mirror; None asks Zenodo, which gives the checksum too.
        md5: of the archive behind `url`.

    Returns:
        the manifests.

    Raises:
        SepmlError: the archive cannot be had, is not the published one, or does not hold a LibriMix tree.
    """
    out = Path(out)
    folder = out / NAME
    if not folder.is_dir():
        expected = Expected(md5=md5)
        if url is None:
            url, expected = zenodo_file(RECORD, f"{NAME}.zip")
        elif md5 is None:
            log.warning("%s: no checksum is given (--md5); only the archive's own ones are verified", url)
        archive = out / f"{NAME}.zip"
        fetch(url, archive, expected)
        unpack_zip(archive, folder)
        archive.unlink()
    write_text(out / "LICENSES" / "README.txt", LICENCE)
    return prepare_librimix_tree(folder, out)

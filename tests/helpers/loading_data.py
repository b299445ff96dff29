"""Settings and epochs of data loaders, on small data sets."""

from dataclasses import replace
from pathlib import Path

from sepml.speech.data.loaders import Batch, DataSettings, train_loader

RATE = 8000


def settings(manifest: Path, **changes: object) -> DataSettings:
    base = DataSettings(
        valid=Path(manifest.name), train=Path(manifest.name), root=manifest.parent, segment=0.125, batch_size=2, workers=0
    )
    return replace(base, **changes)


def epoch_of(
    manifest: Path, epoch: int = 0, seed: int = 0, where: tuple[int, int] = (0, 1), **changes: object
) -> dict[str, Batch]:
    """The examples of an epoch by id, in the order in which they came."""
    loader = train_loader(settings(manifest, **changes), 2, seed, *where)
    loader.batch_sampler.epoch = epoch
    return {
        name: Batch(mixture, sources, (name,))
        for batch in loader
        for mixture, sources, name in zip(batch.mixture, batch.sources, batch.ids, strict=True)
    }

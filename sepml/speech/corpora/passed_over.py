"""The recordings that are left out of a corpus: counted, named, or refused."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sepml.speech.corpora.recordings import BadRecordings, SourceRecording, other_files
from sepml.system.files import write_csv

log = logging.getLogger(__name__)
SKIPPED = "skipped.csv"
_NAMED = 3


@dataclass
class PassedOver:
    """The recordings of a tree that are left out.

    Attributes:
        root: the tree.
        allowed: whether recordings may be left out; otherwise the first ones are refused.
        skipped: the path below the root -> the reason.
    """

    root: Path
    allowed: bool
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, bad: Mapping[SourceRecording, str], of: int, several_channels: bool = False) -> None:
        """Leave recordings out.

        Args:
            bad: with the reason.
            of: recordings that were looked at.
            several_channels: whether some are refused for their channels alone.

        Raises:
            BadRecordings: there are some, and they are not to be left out.
        """
        if bad and not self.allowed:
            raise BadRecordings(f"{min(bad.values())} ({len(bad)} of {of} utterances are at fault)", several_channels)
        self.skipped |= {str(item.source.relative_to(self.root)): why for item, why in bad.items()}

    def write(self, out: Path) -> None:
        """Log how many recordings and other files were left out, and list all in `out/skipped.csv`."""
        others = other_files(self.root)
        if self.skipped:
            first = "; ".join([*self.skipped.values()][:_NAMED])
            log.warning("%s: %d recordings are left out: %s%s", out, len(self.skipped), first, _and_more(len(self.skipped)))
        if others:
            first, more = ", ".join(others[:_NAMED]), _and_more(len(others))
            log.info(
                "%s: %d files are ignored, as their names are not those of recordings: %s%s",
                self.root,
                len(others),
                first,
                more,
            )
        rows = [*sorted(self.skipped.items()), *((file, "no recording by its name") for file in others)]
        if rows:
            write_csv(out / SKIPPED, ["file", "reason"], rows)


def _and_more(count: int) -> str:
    return f" and {count - _NAMED} more ({SKIPPED} names all)" if count > _NAMED else ""

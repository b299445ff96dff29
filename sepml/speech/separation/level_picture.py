"""A small picture of separated talkers for the terminal: a row of block characters for each, its level over time."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import open_audio, read_blocks
from sepml.speech.separation.inputs import printable
from sepml.system.live_lines import cells_of, clock, encoded, fitted
from sepml.system.progress import of_terminal, print_above

log = logging.getLogger(__name__)
BLOCKS, ASCII = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
"""Characters from silence to the loudest level."""
_RANGE_DB = 32.0
_MOST_COLUMNS, _SHORTEST_SECONDS = 72, 0.05
_LONGEST_BLOCK = 1 << 18


def print_levels(outputs: Sequence[Path], shares: Sequence[float], seconds: float) -> None:
    """Print a row for each output on the terminal: its name, how long its talker is heard, and its level over time.

    Args:
        shares: the fraction of the time in which each talker is heard.
        seconds: of sound.
    """
    width, encoding = of_terminal()
    times = [f"talks {clock(share * seconds)}" for share in shares]
    names, longest = [encoded(printable(output.name), encoding) for output in outputs], max(map(len, times))
    room = min(max(map(cells_of, names)), width // 3)
    labels = [f"  {fitted(name, room)}  {time:>{longest}}  " for name, time in zip(names, times, strict=True)]
    # Some terminals go to the next line where one is full.
    columns = min(width - len("      ") - longest - room - 1, _MOST_COLUMNS, int(seconds / _SHORTEST_SECONDS) + 1)
    if columns < 1:
        return
    try:
        levels = np.stack([levels_of(output, columns) for output in outputs])
    except SepmlError as error:
        # Another machine has written it, whose file system is not this one's.
        log.debug("no picture of the levels: %s", error)
        return
    characters = BLOCKS if encoded(BLOCKS, encoding) == BLOCKS else ASCII
    for number, (label, row) in enumerate(zip(labels, rows_of(levels, characters), strict=True)):
        print_above(label, row, number)


def levels_of(file: Path, columns: int) -> np.ndarray:
    """The mean power of a file of one channel in each of some equal parts of its time, (columns,).

    Raises:
        SepmlError: it cannot be read.
    """
    energy, counts = np.zeros(columns), np.zeros(columns)
    begin = 0
    with open_audio(file) as sound:
        for block in read_blocks(file, sound, min(max(sound.frames // (4 * columns), 1), _LONGEST_BLOCK)):
            column = min(begin * columns // sound.frames, columns - 1)
            energy[column] += float(np.square(block, dtype=np.float64).sum())
            counts[column] += block.size
            begin += len(block)
    return energy / np.maximum(counts, 1)


def rows_of(levels: np.ndarray, characters: str) -> list[str]:
    """Powers (n, columns) as text: a character for each, of which the last is the loudest of all; the first is 32 dB below it.

    >>> rows_of(np.array([[1.0, 0.1, 0.01], [0.0, 1e-3, 1e-5]]), ASCII)
    ['@*-', ' . ']
    """
    loudest = float(levels.max(initial=0.0))
    if not loudest:
        return [characters[0] * levels.shape[1]] * len(levels)
    db = 10 * np.log10(np.maximum(levels / loudest, 1e-12))
    steps = np.clip(np.ceil((db / _RANGE_DB + 1) * (len(characters) - 1)), 0, len(characters) - 1).astype(int)
    return ["".join(characters[step] for step in row) for row in steps]

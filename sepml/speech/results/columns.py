"""The metrics by name: the columns that each fills, their titles and decimals. Imports nothing heavy: commands read it."""

COLUMNS = {
    "si_snr": ("si_snr", "si_snri"),
    "sdr": ("sdr", "sdri"),
    "sir": ("sir",),
    "sar": ("sar",),
    "stoi": ("stoi",),
    "estoi": ("estoi",),
    "pesq": ("pesq",),
    "pesq_nb": ("pesq_nb",),
}
"""The columns that each metric fills; the improvements are over the mixture."""
KNOWN = tuple(COLUMNS)
"""All metrics, in the order of their columns."""
METRICS = tuple(name for name in KNOWN if name != "pesq_nb")
"""Those that are measured unless others are asked for; at 8 kHz `pesq` is narrow-band already."""
TITLES = {
    "si_snr": "SI-SNR dB",
    "si_snri": "SI-SNRi dB",
    "sdr": "SDR dB",
    "sdri": "SDRi dB",
    "sir": "SIR dB",
    "siri": "SIRi dB",
    "sar": "SAR dB",
    "stoi": "STOI",
    "stoii": "STOIi",
    "estoi": "ESTOI",
    "estoii": "ESTOIi",
    "pesq": "PESQ",
    "pesqi": "PESQi",
    "pesq_nb": "PESQ-NB",
    "neg_si_snr": "negative SI-SNR, dB",
}
"""Column -> its title, in the order of a table's columns."""
_THREE_DECIMALS = ("stoi", "stoii", "estoi", "estoii")


def title(column: str) -> str:
    """A column's name for people; an unknown column keeps its own.

    >>> title("si_snri"), title("si_snri_2"), title("wer")
    ('SI-SNRi dB', 'SI-SNRi dB, source 2', 'wer')
    """
    base, _, source = column.rpartition("_")
    if base and source.isdecimal():
        return f"{title(base)}, source {source}"
    return TITLES.get(column, column)


def decimals_of(column: str) -> int:
    """The decimals that a column is shown with."""
    return 3 if column in _THREE_DECIMALS else 2


def number(value: float | None, column: str) -> str:
    """A value of a column with its decimals, or a dash."""
    return "-" if value is None else f"{value:.{decimals_of(column)}f}"

"""NIST SPHERE files made from samples, plain, in mu-law, or compressed by a small shorten encoder."""

from pathlib import Path

import numpy as np

DIFF, QUIT, BLOCKSIZE, BITSHIFT, ZERO = range(4), 4, 5, 6, 8
S16HL, S16LH = 3, 5
BLOCK, N_MEANS = 256, 4
CODINGS = [("pcm", "01"), ("pcm", "10"), ("ulaw", "01"), ("shorten", "01"), ("shorten", "10"), ("shorten1", "01")]


def sphere(path: Path, x: np.ndarray, coding: str = "pcm", order: str = "01", **fields: object) -> np.ndarray:
    """Write a SPHERE file of int16 samples.

    Args:
        x: `(T,)`.
        coding: `pcm`, `ulaw`, or `shorten` with a version behind it if not 2, such as `shorten1`.
        order: `01` is little-endian, `10` big-endian.
        fields: put into the header beside, or instead of, those that tell the truth; None leaves one out.

    Returns:
        the samples that the file holds; for mu-law they are rounded.
    """
    import soundfile

    heard, name = x, coding
    if coding == "pcm":
        data = x.astype("<i2" if order == "01" else ">i2").tobytes()
    elif coding == "ulaw":
        soundfile.write(path, x, 16000, format="RAW", subtype="ULAW")
        data = path.read_bytes()
        heard, _ = soundfile.read(path, dtype="int16", format="RAW", subtype="ULAW", samplerate=16000, channels=1)
    else:
        version = int(coding.removeprefix("shorten") or 2)
        data = shorten(x, version, S16LH if order == "01" else S16HL)
        name = f"pcm,embedded-shorten-v{version}.00"
    truth = {
        "database_id": "WSJ0",
        "channel_count": 1,
        "sample_count": len(x),
        "sample_rate": 16000,
        "sample_n_bytes": 1 if coding == "ulaw" else 2,
        "sample_byte_format": None if coding == "ulaw" else order,
        "sample_sig_bits": 8 if coding == "ulaw" else 16,
        "sample_coding": name,
        "sample_checksum": int(x.astype(np.int64).sum() % 65536),
    }
    lines = ["NIST_1A", "   1024"]
    for key, value in (truth | fields).items():
        if value is not None:
            kind = "-i" if isinstance(value, int) else f"-s{len(str(value))}"
            lines.append(f"{key} {kind} {value}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join([*lines, "end_head\n"]).encode().ljust(1024) + data)
    return heard


def shorten(x: np.ndarray, version: int = 2, kind: int = S16LH) -> bytes:
    """Samples as a shorten stream: Rice codes of the residuals of polynomial predictors (Robinson 1994)."""
    bits = [_ulong(value) for value in (kind, 1, BLOCK, 0, N_MEANS, 0)]
    past, means, shift = [0, 0, 0], [0] * N_MEANS, 0
    for first in range(0, len(x), BLOCK):
        block = [int(value) for value in x[first : first + BLOCK]]
        if len(block) < BLOCK:
            bits += [_uvar(BLOCKSIZE, 2), _ulong(len(block))]
        if (even := _even(block)) != shift:
            shift = even
            bits += [_uvar(BITSHIFT, 2), _uvar(shift, 2)]
        block = [value >> shift for value in block]
        offset = _divide(sum(means) + (N_MEANS // 2 if version > 1 else 0), N_MEANS)
        if version > 1:
            offset >>= shift
        bits += _block(block, past, offset)
        mean = _divide(sum(block) + (len(block) // 2 if version > 1 else 0), len(block))
        means = [*means[1:], mean << shift if version > 1 else mean]
        past = [*past, *block][-3:]
    text = "".join([*bits, _uvar(QUIT, 2)])
    # Programs fill the last word of four bytes.
    text = text.ljust(-(-len(text) // 32) * 32, "0")
    return b"ajkg" + bytes([version]) + int(text, 2).to_bytes(len(text) // 8, "big")


def _block(block: list[int], past: list[int], offset: int) -> list[str]:
    """One block by the best of the four predictors; all zeros have a code of their own."""
    if not any(block):
        return [_uvar(ZERO, 2)]
    known = [*past, *block]
    guesses = [
        [offset] * len(block),
        known[2:-1],
        [2 * a - b for a, b in zip(known[2:-1], known[1:-2], strict=True)],
        [3 * a - 3 * b + c for a, b, c in zip(known[2:-1], known[1:-2], known[:-3], strict=True)],
    ]
    residuals = [[value - guess for value, guess in zip(block, row, strict=True)] for row in guesses]
    best = min(DIFF, key=lambda i: sum(map(abs, residuals[i])))
    mean = sum(map(abs, residuals[best])) / len(block)
    energy = max(0, int(mean).bit_length())
    codes = [_uvar(2 * r if r >= 0 else -2 * r - 1, energy + 1) for r in residuals[best]]
    return [_uvar(best, 2), _uvar(energy, 3), *codes]


def _even(block: list[int]) -> int:
    """How many low bits are 0 in all samples of a block; 0 for silence."""
    every = 0
    for value in block:
        every |= value
    return (every & -every).bit_length() - 1 if every else 0


def _divide(a: int, b: int) -> int:
    """Division as C has it, towards zero."""
    return a // b if a >= 0 else -(-a // b)


def _uvar(value: int, low: int) -> str:
    """The high part in unary, closed by a 1, and `low` plain bits."""
    plain = format(value & ((1 << low) - 1), f"0{low}b") if low else ""
    return "0" * (value >> low) + "1" + plain


def _ulong(value: int) -> str:
    width = value.bit_length()
    return _uvar(width, 2) + _uvar(value, width)


def speech_like(seed: int, length: int, offset: int = 0, loudness: float = 2000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    x = loudness * np.sin(t / 15) * np.sin(t / 900 + seed) ** 2 + rng.normal(0, loudness / 40, length) + offset
    return np.clip(np.round(x), -32768, 32767).astype(np.int16)


SIGNALS = {
    "speech": speech_like(1, 4000),
    "one sample more than a block": speech_like(2, 257),
    "shorter than a block": speech_like(3, 3),
    "below zero": speech_like(4, 2001, offset=-300),
    "above zero": speech_like(5, 2001, offset=77),
    "full scale": speech_like(6, 3000, loudness=60000),
    "white": np.random.default_rng(7).integers(-32768, 32768, 1500).astype(np.int16),
    "low bits unused": (speech_like(8, 1500, offset=-100) // 8 * 8).astype(np.int16),
    "silence inside": np.concatenate([speech_like(9, 700), np.zeros(600, np.int16), speech_like(10, 1000) // 4 * 4]),
    "half a minute": np.tile(speech_like(11, 8000), 60),
}

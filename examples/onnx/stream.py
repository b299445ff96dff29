"""Separates speech while it comes, by a causal model that `sepml export --streaming` has written.

    pip install onnxruntime numpy
    arecord -f S16_LE -r 8000 -c 1 | python stream.py step.onnx | aplay -f S16_LE -r 8000 -c 2

takes 16-bit samples at the rate of the model, and gives interleaved ones, a channel for each talker, `behind` samples later.
"""

import sys
from contextlib import suppress

import numpy as np
import onnxruntime


def main() -> None:
    """Separate standard input to standard output."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    session = onnxruntime.InferenceSession(sys.argv[1])
    facts = session.get_modelmeta().custom_metadata_map
    block, state = int(facts["block"]), np.zeros(int(facts["state_size"]), np.float32)
    left, heard = int(facts["behind"]), b"more"
    while heard:
        heard = sys.stdin.buffer.read(2 * block)
        # At the end zeros, until the last samples have come out.
        left -= block - len(heard) // 2
        samples = np.zeros(block, np.float32)
        samples[: len(heard) // 2] = np.frombuffer(heard[: len(heard) // 2 * 2], "<i2") / 32768
        est, state = session.run(["est_sources", "next_state"], {"samples": samples, "state": state})
        sys.stdout.buffer.write((32768 * est.T).clip(-32768, 32767).astype("<i2").tobytes())
        sys.stdout.buffer.flush()
        heard = heard or left > 0


if __name__ == "__main__":
    # Ended by Ctrl-C.
    with suppress(KeyboardInterrupt):
        main()

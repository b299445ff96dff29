"""Separates speech while it comes, by a causal model that `sepml export --streaming` has written.

    pip install onnxruntime numpy
    arecord -f S16_LE -r 8000 -c 1 | python stream.py step.onnx | aplay -f S16_LE -r 8000 -c 2

takes 16-bit samples at the rate of the model, and gives interleaved ones, a channel for each talker.
"""

import sys

import numpy as np
import onnxruntime


def main() -> None:
    """Separate standard input to standard output."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    session = onnxruntime.InferenceSession(sys.argv[1])
    facts = session.get_modelmeta().custom_metadata_map
    block, state = int(facts["block"]), np.zeros(int(facts["state_size"]), np.float32)
    while len(heard := sys.stdin.buffer.read(2 * block)) == 2 * block:
        samples = np.frombuffer(heard, "<i2").astype(np.float32) / 32768
        est, state = session.run(["est_sources", "next_state"], {"samples": samples, "state": state})
        sys.stdout.buffer.write((32768 * est.T).clip(-32768, 32767).astype("<i2").tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

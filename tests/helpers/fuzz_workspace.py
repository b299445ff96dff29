"""What `fuzz.py` damages: mixtures, shards, an experiment, model folders, scores, an Asteroid checkpoint, compressed speech."""

import os
from pathlib import Path


def make_workspace(root: Path) -> None:
    """Everything that the targets need, by sepml's own commands."""
    import av
    import numpy as np
    import soundfile
    import torch
    import yaml
    from asteroid.models import ConvTasNet

    from sepml.cli import main

    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    os.chdir(root)
    rows = ["mixture_ID,mixture_path,source_1_path,source_2_path,length"]
    for n in range(9):
        sources = 0.1 * rng.standard_normal((2, 4000)) * np.sin(np.arange(4000) / (200 * (n + 1))) ** 2
        for folder, x in zip(("mix", "s1", "s2"), (sources.sum(0), *sources), strict=True):
            Path(folder).mkdir(exist_ok=True)
            soundfile.write(f"{folder}/m{n}.wav", x, 8000, subtype="PCM_16")
        rows.append(f"m{n},mix/m{n}.wav,s1/m{n}.wav,s2/m{n}.wav,4000")
    Path("tr.csv").write_text("\n".join([*rows[:9], ""]))
    Path("cv.csv").write_text("\n".join([rows[0], rows[9], ""]))
    Path("utterances.csv").write_text(
        "file,speaker,split\n" + "".join(f"s{k}/m{n}.wav,v{k},train\n" for k in (1, 2) for n in range(4))
    )
    Path("list.txt").write_text("".join(f"s1/m{n}.wav {n / 7:.6g} s2/m{n}.wav {-n / 7:.6g}\n" for n in range(4)))
    Path("levels.txt").write_text("".join(f"s{k}/m{n} 0.00{n + 1}\n" for k in (1, 2) for n in range(4)))
    network = {
        "kind": "dprnn",
        "filterbank": "stft",
        "window": 128,
        "stride": 64,
        "bottleneck": 4,
        "hidden": 4,
        "blocks": 1,
        "chunk": 8,
    }
    settings = {
        "data": {"valid": "cv.csv", "train": "tr.csv", "segment": 0.25, "batch_size": 4, "workers": 0},
        "peers": [network, network],
        "fit": {"epochs": 1, "tensorboard": False, "precision": "32-true"},
    }
    dynamic = {"data": {**settings["data"], "dynamic": {"utterances": "utterances.csv", "size": 4}}}
    del dynamic["data"]["train"]
    Path("config.yaml").write_text(yaml.safe_dump(settings))
    Path("dynamic.yaml").write_text(yaml.safe_dump({**settings, **dynamic}))
    Path("sharded.yaml").write_text(yaml.safe_dump({**settings, "data": {**settings["data"], "train": "shards"}}))
    _must(main(["train", "-q", "-d", "cpu", "--config", "config.yaml", "--exp", "exp"]))
    _must(main(["shard", "-q", "tr.csv", "shards", "-j", "1"]))
    _must(main(["separate", "-q", "mix/m8.wav", "--model", "exp/peer1", "-o", "est", "-d", "cpu"]))
    for name in "ab":
        _must(
            main(
                [
                    "score",
                    "-q",
                    "--manifest",
                    "cv.csv",
                    "--est",
                    "est",
                    "-o",
                    f"scores/{name}",
                    "--metrics",
                    "si_snr",
                    "-j",
                    "1",
                ]
            )
        )
    model = ConvTasNet(
        n_src=2, n_filters=8, kernel_size=16, stride=8, bn_chan=4, hid_chan=4, skip_chan=4, n_repeats=1, n_blocks=1
    )
    torch.save(
        {"model_name": "ConvTasNet", "model_args": model.get_model_args(), "state_dict": model.state_dict()}, "asteroid.pth"
    )
    speech = (0.1 * rng.standard_normal(4000)).astype(np.float32)
    soundfile.write("speech.flac", speech, 8000)
    soundfile.write("speech.ogg", speech, 8000)
    with av.open("speech.mp3", "w") as box:
        stream = box.add_stream("libmp3lame", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray((speech[None] * 32767).astype(np.int16), "s16", "mono")
        frame.rate = 8000
        for part in (*av.AudioResampler("s16p", "mono", 8000).resample(frame), None):
            for packet in stream.encode(part):
                box.mux(packet)


def _must(code: int) -> None:
    if code:
        raise SystemExit(f"the workspace could not be made: exit code {code}")

"""A folder as TIGER's authors publish theirs, with a small network of random weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

SETTINGS = {
    "out_channels": 8,
    "in_channels": 12,
    "num_blocks": 2,
    "upsampling_depth": 3,
    "att_n_head": 2,
    "att_hid_chan": 3,
    "att_kernel_size": 8,
    "att_stride": 1,
    "win": 64,
    "stride": 16,
    "num_sources": 2,
    "sample_rate": 16000,
}


def shapes(settings: dict, widths: list[int]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the weights, as the authors' own code has them."""
    c, h, depth = settings["out_channels"], settings["in_channels"], settings["upsampling_depth"]
    found: dict[str, tuple[int, ...]] = {"separator.concat_block.0.weight": (c, 1, 1, 1), "separator.concat_block.0.bias": (c,)}
    found |= {"separator.concat_block.1.weight": (1,)}
    for k, width in enumerate(widths):
        found |= {f"BN.{k}.0.weight": (2 * width,), f"BN.{k}.0.bias": (2 * width,)}
        found |= {f"BN.{k}.1.weight": (c, 2 * width, 1), f"BN.{k}.1.bias": (c,), f"mask.{k}.0.weight": (1,)}
        outputs = 4 * width * settings["num_sources"]
        found |= {f"mask.{k}.1.weight": (outputs, c // settings["num_sources"], 1), f"mask.{k}.1.bias": (outputs,)}
    for path in ("separator.freq_path", "separator.frame_path"):
        scales = f"{path}.0"
        found |= {f"{scales}.proj_1x1.conv.weight": (h, c, 1), f"{scales}.proj_1x1.conv.bias": (h,)}
        found |= {f"{scales}.proj_1x1.norm.weight": (h,), f"{scales}.proj_1x1.norm.bias": (h,)}
        found |= {f"{scales}.proj_1x1.act.weight": (1,)}
        found |= {f"{scales}.res_conv.weight": (c, h, 1), f"{scales}.res_conv.bias": (c,)}
        normed = [(f"spp_dw.{k}", (h, 1, 5), True) for k in range(depth)]
        normed += [("globalatt.fc1", (h, h, 1), False), ("globalatt.fc2", (h, h, 1), False)]
        parts = ("local_embedding", "global_embedding", "global_act")
        normed += [(f"loc_glo_fus.{k}.{part}", (h, 1, 1), False) for k in range(depth) for part in parts]
        normed += [(f"last_layer.{k}.{part}", (h, 1, 5), False) for k in range(depth - 1) for part in parts]
        for name, shape, bias in normed:
            found |= {f"{scales}.{name}.conv.weight": shape} | ({f"{scales}.{name}.conv.bias": (h,)} if bias else {})
            found |= {f"{scales}.{name}.norm.weight": (h,), f"{scales}.{name}.norm.bias": (h,)}
        found |= {f"{scales}.globalatt.dwconv.weight": (h, 1, 5), f"{scales}.globalatt.dwconv.bias": (h,)}
        heads, e = settings["att_n_head"], settings["att_hid_chan"]
        projections = [(f"{kind}.{k}", e) for kind in ("Queries", "Keys") for k in range(heads)]
        projections += [(f"Values.{k}", c // heads) for k in range(heads)] + [("attn_concat_proj", c)]
        for name, outputs in projections:
            start = f"{path}.1.{name}"
            found |= {f"{start}.conv.weight": (outputs, c, 1, 1), f"{start}.conv.bias": (outputs,), f"{start}.act.weight": (1,)}
            found |= {f"{start}.norm.gamma": (1, outputs, 1, 1), f"{start}.norm.beta": (1, outputs, 1, 1)}
        found |= {f"{path}.2.gamma": (1, c, 1, 1), f"{path}.2.beta": (1, c, 1, 1)}
    return found


def write_tiger(folder: Path, widths: list[int]) -> Path:
    """A folder with settings and weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes(SETTINGS, widths).items()}
    save_file(weights, folder / "model.safetensors")
    return folder

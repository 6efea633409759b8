"""Adds a group of attention heads to a model. The changed model computes the same as the original.

Run it as ``python -m benchmarks.regroup FOLDER OUT``.

ExLlamaV3 requires that the total width of the keys, and that of the values, is a multiple of 128. SmolLM2 has three key
heads and three value heads of width 64, so both widths are 192. So the last group is doubled: its key, its value and
its queries occur twice, and each copy gets half of the group's part of the output matrix.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from quantpress.files import write_text


def regroup(folder: Path, out: Path) -> None:
    """Writes the changed model to ``out``. ``folder`` has a Llama in one safetensors file. Its other files are
    copied."""
    config = json.loads((folder / "config.json").read_bytes())
    groups, size = config["num_key_value_heads"], config["head_dim"]
    each = config["num_attention_heads"] // groups
    out.mkdir(parents=True)
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            shutil.copyfile(file, out / file.name)
    more = {"num_key_value_heads": groups + 1, "num_attention_heads": each * (groups + 1)}
    write_text(out / "config.json", json.dumps(config | more, indent=2) + "\n")
    weights = load_file(folder / "model.safetensors")
    for name, values in weights.items():
        if name.endswith(("k_proj.weight", "v_proj.weight")):
            weights[name] = np.concatenate([values, values[-size:]])
        elif name.endswith("q_proj.weight"):
            weights[name] = np.concatenate([values, values[-size * each :]])
        elif name.endswith("o_proj.weight"):
            half = values[:, -size * each :] / 2
            weights[name] = np.concatenate([values[:, : -size * each], half, half], axis=1)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    regroup(Path(sys.argv[1]), Path(sys.argv[2]))

"""What `quantpress quantize` says of a variant that the gate withholds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from quantpress.cli.app import main


def test_a_withheld_variant_is_a_failure_with_its_reason(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = {
        "settings": {"home": str(tmp_path / "home"), "evaluation_text": "pydoc-topics", "windows": 2, "threads": 1},
        "defaults": {
            "calibration": {"text": "pydoc-topics"},
            "gates": {"absmax-int8": {"max_divergence": 1e-9, "reason": "nothing is that good"}},
        },
        "models": [],
    }
    (tmp_path / "catalog.yaml").write_text(json.dumps(catalog))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    order = ["--format", "reference", "--variants", "absmax-int8", "--out", "out"]
    monkeypatch.setattr(sys, "argv", ["quantpress", "quantize", str(tiny_model), *order])

    with pytest.raises(SystemExit) as left:
        main()

    said = capsys.readouterr()
    assert left.value.code == 1
    assert said.err.splitlines()[-1].startswith("quantpress: absmax-int8: withheld: mean KLD 0.")
    assert said.err.splitlines()[-1].endswith(" is above the limit of 1e-09")

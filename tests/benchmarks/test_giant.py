"""The published size in earnest: ViT-g from a file in the published format, on any machine.

pytest -m soak tests/benchmarks/test_giant.py -s

Import and forward pass run in processes of their own, whose peak memory is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import ROOT

from echojepa.config import load
from echojepa.models.encoder import VideoEncoder, normalise
from echojepa.pretrain import PretrainConfig

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
LIMIT_GB = 8.0
PREAMBLE = """
import json, resource, sys, time
from pathlib import Path
began = time.perf_counter()
def finish(**facts):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({**facts, "seconds": time.perf_counter() - began, "peak_gb": peak}))
"""
IMPORT = """
from echojepa.models.formats.import_weights import ImportConfig, import_weights
report = import_weights(Path(sys.argv[1]), Path(sys.argv[2]), ImportConfig(size=336))
finish(loaded=report.num_loaded, not_taken=report.not_taken, stay_new=report.stay_new)
"""
FORWARD = """
import torch
from echojepa.models.encoder import normalise
from echojepa.models.weights import load_encoder
encoder = load_encoder(sys.argv[2]).to(torch.bfloat16)
pixels = torch.load(sys.argv[3], weights_only=True)
with torch.no_grad():
    features = encoder(normalise(pixels, torch.bfloat16))
torch.save(features, sys.argv[4])
finish(parameters=sum(p.numel() for p in encoder.parameters()))
"""


def apart(code: str, *arguments: Path) -> dict[str, Any]:
    """Run code in a process of its own; returns what it printed last."""
    command = [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def test_vit_giant_from_a_published_file_under_eight_gigabytes(tmp_path: Path) -> None:
    site = ["run_dir=run", "data.manifest=clips.parquet"]
    recipe = load(ROOT / "configs/pretrain/vit_giant.yaml", site, PretrainConfig)
    torch.manual_seed(0)
    encoder = VideoEncoder(recipe.model.encoder).eval().requires_grad_(False)
    wrapped = {f"module.backbone.{name}": t for name, t in encoder.state_dict().items()}
    torch.save({"target_encoder": wrapped, "epoch": 280}, tmp_path / "vitg.pt")
    torch.save(torch.randint(0, 255, (1, 16, 112, 112, 3), dtype=torch.uint8), tmp_path / "clip.pt")
    names = [tmp_path / name for name in ("vitg.pt", "out", "clip.pt", "features.pt")]
    imported = apart(IMPORT, *names)
    print(f"\nimport: {imported}")
    assert imported["loaded"] == len(wrapped)
    assert not imported["not_taken"] and not imported["stay_new"]
    forward = apart(FORWARD, *names)
    print(f"forward: {forward}")
    assert forward["parameters"] == pytest.approx(1012e6, rel=1e-3)
    assert max(imported["peak_gb"], forward["peak_gb"]) < LIMIT_GB
    features = torch.load(names[3], weights_only=True)
    assert features.shape == (1, 8 * 7 * 7, 1408)
    assert features.dtype == torch.bfloat16 and features.isfinite().all()
    exact = encoder(normalise(torch.load(names[2], weights_only=True), torch.float32))
    alike = torch.nn.functional.cosine_similarity(features.float(), exact, dim=-1)
    print(
        f"cosine to the float32 features: {alike.min():.4f} at least, {alike.mean():.4f} on average"
    )
    assert alike.min() > 0.99

"""The weights that the bundles ship: what their cards say of them is what they reach."""

import json
import math
from pathlib import Path

import pytest
import torch
from pretext3d.training.checkpoint_io import load_checkpoint, plain

from tests.benchmarks.laptop import BUNDLES, laptop_parser

pytestmark = pytest.mark.slow
SHIPPED = sorted(folder.name for folder in BUNDLES.iterdir() if (folder / "models" / "model.pt").is_file())


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
@pytest.mark.parametrize("bundle", SHIPPED)
def test_card_is_what_the_weights_reach(bundle: str, tmp_path: Path) -> None:
    """On the phantom's held-out cases, with today's configuration and code."""
    threads = torch.get_num_threads()
    card = json.loads((BUNDLES / bundle / "models" / "provenance.json").read_text())
    parser = laptop_parser(bundle, output_dir=str(tmp_path), num_workers=0)
    try:
        evaluator = parser.get_parsed_content("validate#evaluator")
        network = parser.get_parsed_content("network")
        content = load_checkpoint(BUNDLES / bundle / "models" / "model.pt")
        assert content["record"] == plain(parser.get_parsed_content("record"))
        network.load_state_dict(content["network"])
        evaluator.run()
    finally:
        torch.set_num_threads(threads)
    # other processors round otherwise, with bfloat16 or without
    for name, value in card["held_out"].items():
        assert math.isclose(evaluator.state.metrics[name], value, rel_tol=0.02, abs_tol=0.005), name

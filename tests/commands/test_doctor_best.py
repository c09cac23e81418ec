"""What the doctor says where best.pt is of an epoch that had learned nothing."""

from pathlib import Path
from typing import Any

from pretext3d.__main__ import main

from tests.commands.test_doctor import epochs, made_up


def test_a_best_epoch_that_had_not_learned_is_not_fine_tuned(tmp_path: Path, capsys: Any) -> None:
    """Epoch 1 has the lowest val_loss, at chance: it is best.pt, which a run's folder stands for."""
    table = epochs(rotation_accuracy=[0.1, 0.5], chance=[0.1, 0.1]).assign(val_loss=[1.0, 2.0])
    run = made_up(tmp_path / "run", table)
    assert main(["doctor", str(run), "--strict"]) == 1
    said = capsys.readouterr().out
    assert (
        "  wrong  best.pt, which fine-tuning takes, is of epoch 1, of the lowest val_loss: rotation_ac"
        in said
    )
    assert f" --pretrained {run / 'checkpoints' / 'final.pt'} --dataset_dir " in said
    (run / "checkpoints" / "final.pt").unlink()
    assert main(["doctor", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"train.yaml --output_dir {run} --resume True")

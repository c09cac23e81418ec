"""What a model card takes from the table of a run."""

from pathlib import Path

from pretext3d.publishing.weights import metrics_at


def test_a_card_has_the_validation_s_metrics_alone(tmp_path: Path) -> None:
    """Not the probe's figures, nor those of another epoch, nor empty ones."""
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,seconds,train_loss,learning_rate,val_loss,accuracy,other,probe_dice\n"
        "1,10,2.5,1.5,0.1,1.25,0.5,0.1,0.2\n"
        "2,20,2.5,1.0,0.1,0.75,0.625,,0.3\n"
    )
    assert metrics_at(tmp_path / "metrics.csv", 2) == (20, {"val_loss": 0.75, "accuracy": 0.625})
    assert metrics_at(tmp_path / "metrics.csv", 3) is None

"""Other programs that run the bundles: MONAI's federated client."""

from pathlib import Path

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from tests.bundles.command import BUNDLES, TINY, history

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")  # what MONAI says of configurations that a server has sent
def test_two_rounds_of_a_federated_pre_training(tmp_path: Path) -> None:
    """The server's part is played here: it adds the client's difference to the weights, and sends them."""
    keys = {key: value for key, value in TINY.items() if key != "max_epochs"}
    client = MonaiAlgo(
        bundle_root=str(BUNDLES / "vectorpose"),
        local_epochs=1,
        config_train_filename="configs/train.yaml",
        train_kwargs={**keys, "output_dir": str(tmp_path / "train")},
        config_evaluate_filename="configs/train.yaml",
        eval_kwargs={**keys, "output_dir": str(tmp_path / "evaluate")},
        best_model_filepath=None,
        final_model_filepath=None,
    )
    client.initialize({ExtraItems.CLIENT_NAME: "clinic"})
    weights = {name: value.clone() for name, value in client.trainer.network.state_dict().items()}
    for _ in range(2):
        client.train(ExchangeObject(weights=weights), extra={})
        update = client.get_weights(extra={})
        assert update.weight_type == WeightType.WEIGHT_DIFF
        assert set(update.weights) == set(weights)
        assert any(torch.as_tensor(value).any() for value in update.weights.values())
        weights = {
            name: (value + torch.as_tensor(update.weights[name])).to(value.dtype)
            for name, value in weights.items()
        }
    report = client.evaluate(ExchangeObject(weights=weights), extra={}).metrics
    assert report["vector_error_mm"] > 0
    client.finalize()
    assert [row["epoch"] for row in history(tmp_path / "train")] == ["1", "2"]

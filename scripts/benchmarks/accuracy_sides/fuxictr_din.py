"""FuxiCTR's DIN, in its own training step."""

import importlib.metadata
from collections.abc import Iterator

import numpy as np
import torch
from accuracy_sides import case as case_lib
from fuxictr import features
from model_zoo.LongCTR.DIN import DIN


class Side(case_lib.Trainer):
    """The model; a batch has the items of a history, and then the item to score."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        torch.set_num_threads(1)
        torch.manual_seed(self._case.seed)
        case, layers = self._case, self._case.layers
        feature_map = features.FeatureMap("amazon", "")
        feature_map.default_emb_dim = case.dim
        feature_map.labels = case.labels
        for name in layers["item"]:
            feature_map.features[name] = {
                "type": "categorical",
                "source": "item",
                "vocab_size": case.sizes[case.tables[name]],
                "padding_idx": 0,
            }
        self._model = DIN(
            feature_map,
            dnn_hidden_units=layers["units"],
            attention_hidden_units=layers["attention_units"],
            attention_hidden_activations="ReLU",
            embedding_dim=case.dim,
            net_dropout=layers["dropout"],
            batch_norm=True,
            din_use_softmax=layers["softmax"],
            embedding_regularizer=case.l2,
            optimizer="adam",
            loss="binary_crossentropy",
            metrics=[],
            model_root="",
            verbose=0,
        )
        for group in self._model.optimizer.param_groups:
            group["eps"] = case.epsilon
        self._model._max_gradient_norm = case.clip_norm  # As `fit` sets these.
        self._model._total_steps, self._model._eval_steps = 0, float("inf")
        self._model._stop_training = False

    def versions(self) -> dict[str, str]:
        versions = {"FuxiCTR": importlib.metadata.version("fuxictr")}
        return versions | {"torch": torch.__version__}

    def parameters(self) -> int:
        return sum(x.numel() for x in self._model.parameters() if x.requires_grad)

    def _inputs(self, take: str) -> Iterator[tuple]:
        layers, (label,) = self._case.layers, self._case.labels
        for batch in self._batches(take):
            items = {}
            for name, history in zip(layers["item"], layers["history"], strict=True):
                ids = np.concatenate([batch[history], batch[name][:, None]], axis=1)
                items[name] = torch.from_numpy(ids.ravel())
            mask = torch.from_numpy(batch[layers["history"][0]] > 0).float()
            yield {label: torch.from_numpy(batch[label])}, items, mask

    def epoch(self, take: str, rates: list[float]) -> None:
        def batches() -> Iterator[tuple]:
            for rate, batch in zip(rates, self._inputs(take), strict=True):
                for group in self._model.optimizer.param_groups:
                    group["lr"] = rate
                yield batch

        self._model.train_epoch(batches())

    def predict(self, take: str, give: str) -> None:
        np.save(give, self._model.predict(self._inputs(take))[np.newaxis])

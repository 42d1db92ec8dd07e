"""FuxiCTR's layers, assembled as its DCNv2, in its own training loop.

The package has no such model for plain features. Batches come from memory: its own
loaders take rows apart one by one, or hand them over from other processes.
"""

import importlib.metadata
from collections.abc import Iterator

import numpy as np
import torch
from fuxictr import features
from fuxictr.pytorch import layers
from fuxictr.pytorch import models
from zoo_sides import case as case_lib


class _DCNv2(models.BaseModel):
    """Cross layers and a parallel deep tower, with one logit of both."""

    def __init__(self, case: case_lib.Case, feature_map: features.FeatureMap) -> None:
        super().__init__(
            feature_map,
            embedding_regularizer=case.l2,
            metrics=[],
            model_root="",
            verbose=0,
        )
        width = feature_map.sum_emb_out_dim()
        self.embedding_layer = layers.FeatureEmbedding(feature_map, case.dim)
        self.crossnet = layers.CrossNetV2(width, case.cross_layers)
        self.dnn = layers.MLP_Block(
            width, case.units, dropout_rates=case.dropout, batch_norm=True
        )
        self.fc = torch.nn.Linear(width + case.units[-1], 1)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.momentum, module.eps = 1.0 - case.momentum, case.epsilon
        self.compile("adam", "binary_crossentropy", case.learning_rate)
        for group in self.optimizer.param_groups:
            group["eps"] = case.adam_epsilon
        self.reset_parameters()
        self._max_gradient_norm = case.clip_norm  # As `fit` sets these.
        self._total_steps, self._eval_steps = 0, float("inf")
        self._stop_training = False

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        both = torch.cat([self.crossnet(x), self.dnn(x)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(both))}


class Side(case_lib.Trainer):
    """The model, and the examples as tensors."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        torch.set_num_threads(1)
        torch.manual_seed(1)
        feature_map = features.FeatureMap("frappe", "")
        feature_map.default_emb_dim = self._case.dim
        feature_map.labels = [self._case.label]
        for name, size in zip(self._case.features, self._data.sizes, strict=True):
            feature_map.features[name] = {
                "type": "categorical",
                "source": "",
                "vocab_size": size,
            }
        self._model = _DCNv2(self._case, feature_map)

    def versions(self) -> dict:
        versions = {"FuxiCTR": importlib.metadata.version("fuxictr")}
        return versions | {"torch": torch.__version__}

    def parameters(self) -> int:
        return sum(x.numel() for x in self._model.parameters() if x.requires_grad)

    def _batches(
        self, examples: case_lib.Examples, *, shuffle: bool
    ) -> Iterator[dict[str, torch.Tensor]]:
        labels = torch.from_numpy(examples.labels)
        ids = torch.from_numpy(examples.ids)
        if shuffle:
            order = torch.randperm(len(labels))
            ids, labels = ids[order], labels[order]
        size = self._case.batch
        for batch, label in zip(ids.split(size), labels.split(size), strict=True):
            columns = dict(zip(self._case.features, batch.T, strict=True))
            yield columns | {self._case.label: label}

    def epoch(self) -> None:
        self._model.train_epoch(self._batches(self._data.train, shuffle=True))

    def predict(self, give: str) -> None:
        self._model.eval()
        with torch.no_grad():
            found = [
                self._model(batch)["y_pred"][:, 0].numpy()
                for batch in self._batches(self._data.eval, shuffle=False)
            ]
        np.save(give, np.concatenate(found))

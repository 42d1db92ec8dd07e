"""Multi-task networks in plain PyTorch."""

import numpy as np
import torch
from accuracy_sides import case as case_lib
from torch import nn


class _Towers(nn.Module):
    """A shared layer or gated experts, and a tower for each task.

    Args:
      case: `layers` has `experts`, their number or 0 for one shared layer, `units`,
        the width of each, and `tower_units`.
    """

    def __init__(self, case: case_lib.Case) -> None:
        super().__init__()
        self._case, layers = case, case.layers
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(size, case.dim) for name, size in case.sizes.items()}
        )
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=case.dim**-0.5)
        width = case.dim * len(case.tables) + len(case.dense)
        self._experts, units = layers["experts"], layers["units"]
        self.shared = nn.Linear(width, units * max(1, self._experts))
        self.gates, self.towers = nn.ModuleList(), nn.ModuleList()
        for _ in case.labels:
            if self._experts:
                self.gates.append(nn.Linear(width, self._experts))
            hidden = nn.Linear(units, layers["tower_units"])
            self.towers.append(
                nn.Sequential(hidden, nn.ReLU(), nn.Linear(hidden.out_features, 1))
            )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns logits, `[tasks, batch]`."""
        case = self._case
        x = [self.tables[table](batch[name]) for name, table in case.tables.items()]
        x += [batch[name][:, None] for name in case.dense]
        joined = torch.cat(x, dim=1)
        shared = torch.relu(self.shared(joined))  # [batch, experts * units]
        if not self._experts:
            return torch.stack([tower(shared)[:, 0] for tower in self.towers])
        experts = shared.unflatten(1, (self._experts, -1))
        logits = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            mixed = torch.softmax(gate(joined), dim=1)[:, None] @ experts
            logits.append(tower(mixed[:, 0])[:, 0])
        return torch.stack(logits)


class Side(case_lib.Trainer):
    """The network, trained by the sum of the tasks' log losses."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        torch.set_num_threads(1)
        torch.manual_seed(self._case.seed)
        self._model = _Towers(self._case)
        self._optimizer = torch.optim.Adam(
            self._model.parameters(), eps=self._case.epsilon
        )

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def parameters(self) -> int:
        return sum(x.numel() for x in self._model.parameters())

    def _tensors(self, batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(column) for name, column in batch.items()}

    def epoch(self, take: str, rates: list[float]) -> None:
        self._model.train()
        for rate, rows in zip(rates, self._batches(take), strict=True):
            batch = self._tensors(rows)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            labels = torch.stack([batch[name] for name in self._case.labels])
            losses = nn.functional.binary_cross_entropy_with_logits(
                self._model(batch), labels, reduction="none"
            )
            self._optimizer.zero_grad()
            losses.mean(dim=1).sum().backward()
            self._optimizer.step()

    def predict(self, take: str, give: str) -> None:
        self._model.eval()
        with torch.no_grad():
            found = [
                torch.sigmoid(self._model(self._tensors(batch))).numpy()
                for batch in self._batches(take)
            ]
        np.save(give, np.concatenate(found, axis=1))

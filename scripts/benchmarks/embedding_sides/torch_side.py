"""`torch.nn.Embedding(sparse=True)` and torch's Adagrad: no hash."""

import numpy as np
import torch
from embedding_sides import case as case_lib


class Side(case_lib.Trainer):
    """A module per feature, and their batches.

    Args:
      case: As in `Trainer`.
      threads: Their number; "" takes one for each processor.
    """

    def __init__(self, case: str, threads: str = "") -> None:
        super().__init__(case)
        if threads or self._case.cores:
            torch.set_num_threads(int(threads or self._case.cores))

    def versions(self) -> dict:
        return {"torch": torch.__version__}

    def make(self, take: str) -> None:
        case = self._case
        weights = np.load(take).reshape(case.features, case.ids, case.dim)
        self._modules = [
            torch.nn.Embedding.from_pretrained(
                torch.from_numpy(of_feature), freeze=False, sparse=True
            )
            for of_feature in weights
        ]
        self._optimizer = torch.optim.Adagrad(
            [module.weight for module in self._modules],
            lr=case_lib.LEARNING_RATE,
            initial_accumulator_value=case_lib.ACCUMULATOR,
            eps=0.0,
        )
        self._ids = torch.from_numpy(case.draw())

    def _forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
        return [module(ids[i]) for i, module in enumerate(self._modules)]

    def run(self, steps: int) -> None:
        for _ in range(steps):
            embeddings = self._forward(self._ids[self._done % len(self._ids)])
            torch.autograd.backward(embeddings, [x.detach() for x in embeddings])
            self._optimizer.step()
            self._optimizer.zero_grad()
            self._done += 1

    def weights(self, give: str) -> None:
        with torch.no_grad():
            np.save(give, torch.cat(self._forward(self._ids[0])).numpy())

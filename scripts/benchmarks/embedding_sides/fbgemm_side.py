"""FBGEMM's table-batched embedding, as in TorchRec, on CPU: no hash."""

import fbgemm_gpu
import numpy as np
import torch
from embedding_sides import case as case_lib
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)


class Side(case_lib.Trainer):
    """One operator for all features, and its batches.

    Args:
      case: As in `Trainer`.
      threads: Their number; "" takes one for each processor.
    """

    def __init__(self, case: str, threads: str = "") -> None:
        super().__init__(case)
        if threads or self._case.cores:
            torch.set_num_threads(int(threads or self._case.cores))

    def versions(self) -> dict:
        return {"fbgemm_gpu": fbgemm_gpu.__version__, "torch": torch.__version__}

    def make(self, take: str) -> None:
        case = self._case
        table = (case.ids, case.dim, EmbeddingLocation.HOST, ComputeDevice.CPU)
        self._module = SplitTableBatchedEmbeddingBagsCodegen(
            [table] * case.features,
            optimizer=EmbOptimType.EXACT_ADAGRAD,
            learning_rate=case_lib.LEARNING_RATE,
            eps=0.0,
        )
        weights = np.load(take).reshape(case.features, case.ids, case.dim)
        for held, of_feature in zip(
            self._module.split_embedding_weights(), weights, strict=True
        ):
            held.data.copy_(torch.from_numpy(of_feature))
        for (state,) in self._module.split_optimizer_states():
            state.fill_(case_lib.ACCUMULATOR)
        self._ids = torch.from_numpy(case.draw()).flatten(1)
        self._offsets = torch.arange(self._ids.shape[1] + 1)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            ids = self._ids[self._done % len(self._ids)]
            embeddings = self._module(ids, self._offsets)  # [batch, features * dim]
            embeddings.backward(embeddings.detach())
            self._done += 1

    def weights(self, give: str) -> None:
        case = self._case
        with torch.no_grad():
            found = self._module(self._ids[0], self._offsets)
        by_feature = found.view(case.batch, case.features, case.dim).transpose(0, 1)
        np.save(give, by_feature.reshape(-1, case.dim).numpy())

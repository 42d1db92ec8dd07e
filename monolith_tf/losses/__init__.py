"""Losses: functions from labels and logits to one float32 number.

They compute in float32 for any input type, stay finite at extreme logits, and are 0 for
an empty batch. `log_loss`, `mse` and the losses over lists are weighted means.
`sigmoid_loss`, `softmax_loss`, `batch_softmax_loss` and `inbatch_auc_loss` are sums by
default.
"""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "ItemInterval": "item_interval",
        "approx_ndcg_loss": "listwise",
        "batch_softmax_loss": "in_batch",
        "inbatch_auc_loss": "in_batch",
        "list_mle_loss": "listwise",
        "list_softmax_loss": "listwise",
        "log_loss": "pointwise",
        "mse": "pointwise",
        "pairwise_hinge_loss": "pairwise",
        "pairwise_logistic_loss": "pairwise",
        "pairwise_soft_zero_one_loss": "pairwise",
        "sigmoid_head": "heads",
        "sigmoid_loss": "heads",
        "softmax_head": "heads",
        "softmax_loss": "heads",
    },
)

"""Evaluation metrics: exact, mergeable NumPy accumulators, and Keras forms of some.

Only `metrics.keras` imports TensorFlow.

    auc = metrics.create("auc")
    auc.update(predictions, labels, weights)   # once per batch
    auc.merge(another_workers_auc)
    auc.result()
"""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "AUC": "area",
        "Accuracy": "pointwise",
        "Calibration": "pointwise",
        "GAUC": "area",
        "HistogramAUC": "histogram",
        "HitRate": "ranking",
        "LogLoss": "pointwise",
        "MRR": "ranking",
        "MSE": "pointwise",
        "Metric": "base",
        "NAMES": "registry",
        "NDCG": "ranking",
        "NormalizedEntropy": "pointwise",
        "RMSE": "pointwise",
        "Recall": "ranking",
        "create": "registry",
        "is_higher_better": "registry",
        "keras": "",
        "leave_one_out_ranks": "leave_one_out",
        "needs_keys": "registry",
    },
)

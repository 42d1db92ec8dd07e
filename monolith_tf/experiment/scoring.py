"""Scores splits, in this process or on a cluster's workers."""

from collections.abc import Callable

from monolith_tf.data.spec import Split
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.experiment import sources as sources_lib
from monolith_tf.training import cluster_evaluation
from monolith_tf.training import evaluation


def scorer(
    evaluator: evaluation.Evaluator,
    sources: sources_lib.Sources,
    cluster: cluster_lib.Cluster | None,
    steps_per_loop: int,
) -> Callable[[Split], dict[str, float]]:
    """Returns a function from a split to its metrics.

    Args:
      evaluator: The network and the metrics.
      sources: Opens the split.
      cluster: Whose workers score; None for this process.
      steps_per_loop: Batches that a worker scores at a time.
    """
    if cluster is not None:
        workers = cluster_evaluation.ClusterEvaluator(
            evaluator, cluster, sources.feed, steps_per_loop
        )

    def score(split: Split) -> dict[str, float]:
        source = sources.open(split)
        if cluster is not None:
            return workers.evaluate(split, source.batches_per_epoch() or 0)
        with sources_lib.plain_errors(source):
            return evaluator.evaluate(source.dataset(shuffle=False, string_codes=True))

    return score

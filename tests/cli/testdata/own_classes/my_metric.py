import numpy as np

from monolith_tf import metrics


class Distance:  # Of no class of the package.
    higher_is_better = False

    def __init__(self, power=1):
        self.sum = self.rows = 0

    def update(self, predictions, labels, weights=None, keys=None):
        self.sum += np.abs(np.asarray(predictions) - np.asarray(labels)).sum()
        self.rows += len(labels)

    def result(self):
        return self.sum / self.rows


class Users(metrics.Metric):
    needs_keys = True

    def __init__(self):
        self.reset()

    def reset(self):
        self.users = set()

    def result(self):
        return len(self.users)

    def _add(self, batch):
        self.users |= set(batch.keys.tolist())

    def _merge(self, other):
        self.users |= other.users


class Silent:
    def update(self, predictions, labels, weights=None, keys=None):
        pass

    def result(self):
        return 0.0


class Deaf:
    def result(self):
        return 0.0


class Wanting(Silent):
    def __init__(self, k):
        pass


def function():
    pass

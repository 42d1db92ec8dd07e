"""The layout of saved rows: a chain of checkpoints has one layout."""

from collections.abc import Sequence

from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.saved import write
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

_KEYS = ("name", "slices", "stamps", "tables")


def of(manifest: JsonMapping) -> list[JsonDict]:
    """Returns the layout of saved rows, from their manifest."""
    return [{key: group.get(key) for key in _KEYS} for group in manifest["groups"]]


def is_same(manifest: JsonMapping, groups: Sequence[Group]) -> bool:
    """Returns whether rows of groups would be saved in the layout of a manifest."""
    return of(manifest) == of({"groups": [write.group_entry(g) for g in groups]})

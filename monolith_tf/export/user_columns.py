"""The user's columns in the signature for many items."""

from collections.abc import Collection

from monolith_tf.export.errors import ExportError
from monolith_tf.features.spec import FeatureSpec


def find(features: Collection[FeatureSpec], user_features: Collection[str]) -> set[str]:
    """Returns the columns that the features of the user read.

    Raises:
      ExportError: If there is no such feature, none is left for the items, or a column
        is read by features of both.
    """
    names = [feature.name for feature in features]
    unknown = sorted(set(user_features) - set(names))
    if unknown:
        raise ExportError(
            f"`export.user_features` must name features. Received: {unknown}; the "
            f"features are {names}."
        )
    user = {f.source_column for f in features if f.name in user_features}
    items = {f.source_column for f in features if f.name not in user_features}
    if not items:
        raise ExportError(
            "`export.user_features` must leave a feature to the items. Received: all "
            f"of {names}."
        )
    if user & items:
        raise ExportError(
            "`export.user_features` must name all features of a column or none. "
            f"Received: some of those that read {sorted(user & items)}."
        )
    return user

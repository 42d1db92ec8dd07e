"""A client recognizes what exports of every landed version answer."""

import pytest

from monolith_tf.export import refusals

# As exports of earlier versions have them in their graphs.
_ANSWERS = {
    "RELOADED": "update_embeddings: the model was loaded anew since it gave the token",
    "OTHER_LINEAGE": "update_embeddings: the rows are of another lineage than the "
    "served ones:",
    "WENT_BACK": "update_embeddings: the served rows are ahead of where the job went "
    "back. Their step, and where:",
    "LATER_CHECKPOINT": "update_embeddings: the served rows are of a later checkpoint. "
    "Its step, and that of the request:",
    "UNKNOWN_TABLE": "update_embeddings: unknown table; the model has ['item']. "
    "Received:",
    "BEYOND": "update_embeddings: rows must be within what the `compressor` of their "
    "table holds. Row, column and value of the first that is not:",
    "NO_WAY_BACK": "roll_back: only the job of the served values, on a newer branch, "
    "may go back:",
    "INCOMPLETE": "update_dense: the vector of dense weights is not complete. Received "
    "and needed:",
    "OTHER_UPLOAD": "update_dense: another upload of dense weights has begun. Its "
    "number:",
    "NOT_FINITE": "update_dense: dense weights must be finite. The first variable that "
    "is not:",
    "NO_ROOM": "update_embeddings: capacity is spent: the request needs spare rows, "
    "and fewer are left. Export a new version. Needed and left:",
}


@pytest.mark.parametrize("name", sorted(n for n in vars(refusals) if n.isupper()))
def test_earlier_answers_are_recognized(name):
    recognized = [n for n in _ANSWERS if getattr(refusals, n) in _ANSWERS[name]]
    assert recognized == [name]

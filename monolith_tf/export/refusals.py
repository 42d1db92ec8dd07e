"""What the signatures that change a model answer to a request that they refuse.

A client receives only the text of an error. So the graph and the client share the part
that identifies each, and no text of a released version may change: its exports are
served for as long as their users want.
"""

RELOADED = "since it gave the token"
OTHER_LINEAGE = "the rows are of another lineage than the served ones"
WENT_BACK = "the served rows are ahead of where the job went back"
NO_WAY_BACK = "only the job of the served values, on a newer branch, may go back"
LATER_CHECKPOINT = "the served rows are of a later checkpoint"
UNKNOWN_TABLE = "unknown table"
BEYOND = "within what the `compressor` of their table holds"
NO_ROOM = "capacity is spent"
INCOMPLETE = "the vector of dense weights is not complete"
OTHER_UPLOAD = "another upload of dense weights has begun"
NOT_FINITE = "dense weights must be finite"

"""What `update_embeddings` answers to a request that it refuses.

A client receives only the text of an error. So the graph and the client share the part
that identifies each, and no text of a released version may change: its exports are
served for as long as their users want.
"""

RELOADED = "since it gave the token"
OTHER_LINEAGE = "the rows are of another lineage than the served ones"
WENT_BACK = "the served rows are ahead of where the job went back"
LATER_CHECKPOINT = "the served rows are of a later checkpoint"
UNKNOWN_TABLE = "unknown table"
BEYOND = "within what the `compressor` of their table holds"
NO_ROOM = "capacity is spent"

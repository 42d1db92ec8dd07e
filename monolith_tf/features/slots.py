"""The permanent slots of embedding tables in feature ids."""

import dataclasses
from collections.abc import Mapping

from monolith_tf import ids
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

_FIRST_SLOT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotRegistry:
    """All slots ever assigned, by table name.

    A table that is removed from the config keeps its entry: no other table gets its
    slot, and it finds its rows again if it is added back.

    Attributes:
      slots: Table name -> slot, including tables that are no longer used.
      next: All slots from 1 to `next - 1` have been assigned.
    """

    slots: Mapping[str, int] = dataclasses.field(default_factory=dict)
    next: int = _FIRST_SLOT

    def to_json(self) -> JsonDict:
        """Returns the registry as plain data for a checkpoint or an export."""
        return {"slots": dict(self.slots), "next": self.next}

    @classmethod
    def from_json(cls, data: JsonMapping) -> "SlotRegistry":
        """Returns the registry that `to_json` wrote."""
        slots = {str(name): int(slot) for name, slot in data["slots"].items()}
        return cls(slots=slots, next=int(data["next"]))


def assign(
    tables: Mapping[str, int | None], recorded: SlotRegistry | None = None
) -> SlotRegistry:
    """Assigns a slot to every table.

    A recorded table keeps its slot; a slot set in the config is used as it is; any
    other table gets the smallest slot never used, in the order of the mapping. So
    adding or removing a table never changes another table's slot.

    Args:
      tables: Table name -> slot set in the config, or None to assign one.
      recorded: The registry of the job's checkpoint; None for a new job.

    Returns:
      The registry with the new tables added.

    Raises:
      ValueError: If a slot in the config is out of range, belongs to another table, or
        is not the one that the table's rows were trained with; or if no slot is left.
    """
    recorded = recorded or SlotRegistry()
    slots = dict(recorded.slots)
    for table, slot in tables.items():
        if slot is not None:
            _take(slots, table, slot)
    next_slot = recorded.next
    used = set(slots.values())
    for table in tables:
        if table not in slots:
            while next_slot in used:
                next_slot += 1
            if next_slot >= ids.NUM_SLOTS:
                raise ValueError(
                    f"No slot is left for table `{table}`: all {ids.NUM_SLOTS - 1} "
                    "have been used. Let features share tables, or set a slot "
                    "in the config."
                )
            slots[table] = next_slot
            used.add(next_slot)
    while next_slot in used:
        next_slot += 1
    return SlotRegistry(slots=slots, next=next_slot)


def _take(slots: dict[str, int], table: str, slot: int) -> None:
    """Records a slot set in the config."""
    ids.check_slot(slot)
    owner = next((name for name, taken in slots.items() if taken == slot), table)
    if owner != table:
        raise ValueError(
            f"`slot` of table `{table}` belongs to table `{owner}`, now or in an "
            f"earlier run of this job. Received: slot={slot}. Choose another, or leave "
            "it out to have one assigned."
        )
    if slots.get(table, slot) != slot:
        raise ValueError(
            f"`slot` of table `{table}` was {slots[table]} when its rows were trained "
            f"and cannot change. Received: slot={slot}. Set it back or leave it out, "
            "or train into a new model_dir."
        )
    slots[table] = slot

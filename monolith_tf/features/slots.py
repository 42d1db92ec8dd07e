"""Which slot of the feature ids belongs to which embedding table, once and for all."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from monolith_tf import ids

_FIRST_SLOT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotRegistry:
    """The slots ever given out, by table name.

    A table that leaves the config keeps its entry, so that its slot is never given to
    another and the table finds its rows again when it comes back.

    Attributes:
      slots: Table name -> slot, also of tables that are no longer in use.
      next: Every slot from 1 to `next - 1` has been given out.
    """

    slots: Mapping[str, int] = dataclasses.field(default_factory=dict)
    next: int = _FIRST_SLOT

    def to_json(self) -> dict[str, Any]:
        """Returns the registry as plain data for a checkpoint or an export."""
        return {"slots": dict(self.slots), "next": self.next}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SlotRegistry":
        """Returns the registry that `to_json` described."""
        slots = {str(name): int(slot) for name, slot in data["slots"].items()}
        return cls(slots=slots, next=int(data["next"]))


def assign(
    tables: Mapping[str, int | None], recorded: SlotRegistry | None = None
) -> SlotRegistry:
    """Gives every table a slot.

    A recorded table keeps its slot; a slot given in the config is taken as it is; any
    other table gets the smallest slot never used, in the order of the mapping. Adding
    or removing a table therefore changes no other table's slot.

    Args:
      tables: Table name -> slot given in the config, or None to have one assigned.
      recorded: The registry of the job's checkpoint; None for a new job.

    Returns:
      The registry with the new tables added.

    Raises:
      ValueError: If a given slot does not fit an id, is another table's, or is not the
        one that the table's rows were trained under; or if no slot is left.
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
                    "have been used. Let features share tables, or give a slot "
                    "in the config."
                )
            slots[table] = next_slot
            used.add(next_slot)
    while next_slot in used:
        next_slot += 1
    return SlotRegistry(slots=slots, next=next_slot)


def _take(slots: dict[str, int], table: str, slot: int) -> None:
    """Enters a slot given in the config."""
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

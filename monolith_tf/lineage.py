"""Which values follow from which: the identity of a job, and where it went back."""

import dataclasses
import uuid
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

_BRANCHES, _STEP = ",", "@"


@dataclasses.dataclass(frozen=True)
class Branch:
    """One line of steps, each taken once.

    Attributes:
      id: A random name that no other line has.
      step: The step at which it left its parent; what was trained before that step
        is the same in both.
    """

    id: str
    step: int = 0


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The lines of steps that led to a job's values, the first one first.

    Attributes:
      branches: The lines; none where the values' job is not known.
    """

    branches: tuple[Branch, ...] = ()

    @property
    def job(self) -> str | None:
        """The job's identity, which stays when it goes back; None if not known."""
        return self.branches[0].id if self.branches else None

    def branched(self, step: int) -> "Lineage":
        """Returns a new line that leaves this one at a step."""
        return Lineage((*self.branches, Branch(uuid.uuid4().hex, step)))

    def to_json(self) -> list[list[str | int]]:
        """Returns plain data, `[[id, step], ...]`."""
        return [[branch.id, branch.step] for branch in self.branches]

    def __str__(self) -> str:
        """What `update_embeddings` takes."""
        return _BRANCHES.join(f"{b.id}{_STEP}{b.step}" for b in self.branches)


def from_json(content: Sequence[Sequence[str | int]]) -> Lineage:
    """Returns what `Lineage.to_json` made plain."""
    return Lineage(tuple(Branch(str(name), int(step)) for name, step in content))


def of_state(state: Mapping[str, Any]) -> Lineage:
    """Returns the lineage that the state of a checkpoint, or an export, names.

    Those of 0.1.0 hold an identity of their job alone.
    """
    if state.get("lineage"):
        return from_json(state["lineage"])
    return Lineage((Branch(state["job"]),)) if state.get("job") else Lineage()


def accepts(server: Lineage, newest: int, publisher: Lineage) -> bool:
    """Whether a server's values are a part of a publisher's past.

    The signature `update_embeddings` holds the same rule in its graph.

    Args:
      server: Of what is served.
      newest: The newest step of a row that is served.
      publisher: Of what would be written to it.
    """
    size = len(server.branches)
    if not size or publisher.branches[:size] != server.branches:
        return False
    left = publisher.branches[size : size + 1]
    return all(newest <= branch.step for branch in left)

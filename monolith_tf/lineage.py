"""The lineage of a job's values: its identity, and where it went back."""

import dataclasses
import uuid
from collections.abc import Sequence

from monolith_tf.types import JsonMapping

_BRANCHES, _STEP, _NUMBER = ",", "@", "."


@dataclasses.dataclass(frozen=True)
class Branch:
    """One line of steps, each trained once.

    Attributes:
      id: A random, unique name.
      step: The step at which it left its parent; both share what was trained before
        that step.
    """

    id: str
    step: int = 0

    @property
    def number(self) -> int:
        """How many branches of the job are older, and perhaps others; 0 if unknown."""
        number, dot, _ = self.id.partition(_NUMBER)
        is_number = dot and number.isascii() and number.isdigit() and len(number) < 16
        return int(number) if is_number else 0


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The lines of steps that led to a job's values, in order.

    Attributes:
      branches: The lines; empty if the values' job is unknown.
    """

    branches: tuple[Branch, ...] = ()

    @property
    def job(self) -> str | None:
        """The job's identity, which it keeps when it goes back; None if unknown."""
        return self.branches[0].id if self.branches else None

    @property
    def number(self) -> int:
        """The largest number of a branch; 0 if there is none."""
        return max((branch.number for branch in self.branches), default=0)

    def branched(self, step: int, after: "Lineage | None" = None) -> "Lineage":
        """Returns this lineage with a new line that starts at a step.

        Args:
          step: The step.
          after: The newest lineage of the job; the new line is newer than its lines.
        """
        name = uuid.uuid4().hex
        if self.branches:
            known = max(self.number, after.number if after else 0)
            name = f"{known + 1}{_NUMBER}{name}"
        return Lineage((*self.branches, Branch(name, step)))

    def to_json(self) -> list[list[str | int]]:
        """Returns plain data, `[[id, step], ...]`."""
        return [[branch.id, branch.step] for branch in self.branches]

    def __str__(self) -> str:
        """Returns the text that `update_embeddings` takes."""
        return _BRANCHES.join(f"{b.id}{_STEP}{b.step}" for b in self.branches)


def from_json(content: Sequence[Sequence[str | int]]) -> Lineage:
    """Returns the lineage that `Lineage.to_json` wrote."""
    return Lineage(tuple(Branch(str(name), int(step)) for name, step in content))


def of_state(state: JsonMapping) -> Lineage:
    """Returns the lineage in the state of a checkpoint or an export.

    Version 0.1.0 wrote only the job's identity.
    """
    if state.get("lineage"):
        return from_json(state["lineage"])
    return Lineage((Branch(state["job"]),)) if state.get("job") else Lineage()


def accepts(server: Lineage, newest: int, publisher: Lineage) -> bool:
    """Returns whether a server's values are part of a publisher's history.

    The signature `update_embeddings` applies the same rule in its graph.

    Args:
      server: The lineage of the served values.
      newest: The newest step of a served row.
      publisher: The lineage of the values to write.
    """
    size = len(server.branches)
    if not size or publisher.branches[:size] != server.branches:
        return False
    left = publisher.branches[size : size + 1]
    return all(newest <= branch.step for branch in left)


def may_go_back(server: Lineage, publisher: Lineage) -> bool:
    """Returns whether a publisher may replace a server's values by older ones.

    It may if both are of one job, and the publisher is on the same line, a branch of
    it, or a newer branch. The signature `roll_back` applies the same rule in its graph.

    Args:
      server: The lineage of the served values.
      publisher: The lineage of the values to write.
    """
    size = len(server.branches)
    if not size or not publisher.branches:
        return False
    if publisher.branches[:size] == server.branches:
        return True
    last, mine = publisher.branches[-1], server.branches[-1]
    return publisher.branches[0] == server.branches[0] and last.number > mine.number

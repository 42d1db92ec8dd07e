"""The cases of the benchmark `fused`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Case:
    """One point of the grid; `units` are the CIN's maps, last layer linear."""

    operation: str
    batch: int
    fields: int
    dim: int
    units: tuple[int, ...] = ()
    activation: str | None = None

    @classmethod
    def from_json(cls, fields: dict) -> "Case":
        """Returns the case with these fields; JSON has a list for the tuple."""
        return cls(**fields | {"units": tuple(fields["units"])})

    def __str__(self) -> str:
        units = f" {list(self.units)} {self.activation}" if self.units else ""
        sizes = f"B {self.batch} m {self.fields} D {self.dim}"
        return f"{self.operation} {sizes}{units}"

    @property
    def shapes(self) -> list[list[int]]:
        """Shapes of the weights: kernels and then biases, or w1, b1, w2, b2."""
        if self.operation == "senet":
            n, c = self.fields, max(1, self.fields // 3)
            return [[n, c], [c], [c, n], [n]]
        maps = [self.fields, *self.units[:-1]]
        kernels = [[h * self.fields, o] for h, o in zip(maps, self.units, strict=True)]
        return kernels + [[o] for o in self.units]

    @property
    def output_shape(self) -> list[int]:
        if self.operation == "senet":
            return [self.batch, self.fields, self.dim]
        return [self.batch, sum(self.units)]

"""The sketches of a table's shards, saved so that a restore counts nothing twice.

Each shard saves what it counted itself. Counts that several shards received from an
earlier restore, on another number of shards, are saved once for all of them.
"""

import math
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from monolith_tf.embedding.shard.counting import Inherited
from monolith_tf.embedding.shard.counting import Sketch
from monolith_tf.embedding.shard.shard import Shard


class Part(NamedTuple):
    """Counts of ids whose hash, modulo `modulus`, is `residue`.

    Attributes:
      modulus: Number of shards that counted, or a divisor of it.
      residue: Number of the shard that counted, modulo `modulus`.
      exported: As from `Sketch.export`.
    """

    modulus: int
    residue: int
    exported: np.ndarray


def of_shards(shards: Sequence[Shard]) -> Iterator[Sketch]:
    """Yields the sketches of the shards that have one."""
    for shard in shards:
        if shard.admission is not None and shard.admission.sketch is not None:
            yield shard.admission.sketch


def split(sketches: Sequence[Sketch]) -> Iterator[Part]:
    """Yields the parts to save, from the sketches of all shards in order."""
    shared: dict[int, Inherited] = {}
    for place, sketch in enumerate(sketches):
        yield Part(len(sketches), place, sketch.counted())
        part = sketch.inherited
        if part is not None:
            other = shared.get(part.residue, part)
            # The shard that halved its counts least often needs the largest.
            shared[part.residue] = min(part, other, key=lambda each: each.halvings)
    for part in shared.values():
        yield Part(part.modulus, part.residue, part.now())


def load(parts: Sequence[Part], sketches: Sequence[Sketch]) -> None:
    """Gives each shard all parts that may hold counts of its ids."""
    # A part whose modulus is a multiple of the number of shards is one shard's alone.
    # The others (`wide`) span several shards: they are summed by their residue modulo
    # the greatest common divisor, and each shard inherits the sum that covers its ids.
    count = len(sketches)
    wide = [part for part in parts if part.modulus % count]
    modulus = math.gcd(count, *(part.modulus for part in wide))
    inherited = {
        residue: Inherited(
            modulus,
            residue,
            np.sum(
                [p.exported for p in wide if p.residue % modulus == residue], axis=0
            ),
        )
        for residue in {part.residue % modulus for part in wide}
    }
    for place, sketch in enumerate(sketches):
        own = [
            part.exported
            for part in parts
            if part.modulus % count == 0 and part.residue % count == place
        ]
        sketch.load(np.sum([sketch.zeros(), *own], axis=0))
        if place % modulus in inherited:
            sketch.inherit(inherited[place % modulus])

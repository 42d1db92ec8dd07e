"""The rows that a served model accepts: the graph decides as `lineage` does."""

import hypothesis
import tensorflow as tf
from hypothesis import strategies as st

from monolith_tf import lineage as lineage_lib
from monolith_tf import testing
from monolith_tf.export import update_state
from monolith_tf.export import updates as updates_lib
from monolith_tf.lineage import Branch
from monolith_tf.lineage import Lineage
from monolith_tf.testing import small_network

# Few of each, so that lines coincide; one name is a prefix of another.
_BRANCHES = st.builds(Branch, st.sampled_from(["a", "b", "ab"]), st.integers(0, 4))
_LINES = st.lists(_BRANCHES, max_size=3)


@st.composite
def _cases(draw):
    """The served line and its newest step, the rows' line and step, and if any."""
    served = draw(_LINES)
    mine = draw(st.one_of(_LINES, _LINES.map(lambda more: served + more)))
    return (
        Lineage(tuple(served)),
        draw(st.integers(0, 5)),
        Lineage(tuple(mine)),
        draw(st.integers(1, 5)),  # Rows of step 1 come from no earlier checkpoint.
        draw(st.booleans()),
    )


def _expected(served, newest_served, mine, newest, changes):
    """Whether a request is answered."""
    if not changes and served == mine == Lineage():
        return True  # An export without a job can only be read.
    is_older = changes and served == mine and newest < newest_served
    return lineage_lib.accepts(served, newest_served, mine) and not is_older


# As above, and with numbers.
_NUMBERED = st.builds(
    Branch, st.sampled_from(["a", "1.a", "2.a", "2.b", "10.a", "x.1"]), st.just(1)
)
_NUMBERED_LINES = st.lists(_NUMBERED, max_size=3)


class LineageRuleTest(testing.TestCase):
    def test_the_graph_decides_as_the_function_does(self):
        store = small_network.make().store
        updates = updates_lib.Updates(store, [0], 0, Lineage())
        ids, rows = tf.zeros([0], tf.int64), tf.zeros([0, 3])

        @tf.function(
            input_signature=[
                tf.TensorSpec([], tf.string),
                *[tf.TensorSpec([], tf.int64)] * 2,
            ]
        )
        def ask(lineage, newest, step):
            token = tf.constant(0, tf.int64)
            return updates.apply(
                tf.constant("user"), ids, rows, step, token, lineage, newest
            )

        decided = set()

        @hypothesis.settings(max_examples=300, deadline=None)
        @hypothesis.given(_cases())
        def decides_alike(case):
            served, newest_served, mine, newest, changes = case
            updates.lineage.assign(str(served))
            updates.newest.assign(newest_served)
            updates.step.assign(0)
            try:
                ask(str(mine), newest, int(changes))
                answered = True
            except tf.errors.InvalidArgumentError:
                answered = False
            assert answered == _expected(*case)
            is_written = answered and changes
            left = updates.lineage.numpy().decode(), int(updates.newest)
            after = str(mine), max(newest_served, newest)
            assert left == (after if is_written else (str(served), newest_served))
            assert int(updates.step) == int(is_written)
            decided.add((answered, changes, len(mine.branches) > len(served.branches)))

        decides_alike()
        self.assertLen(decided, 8)  # Every kind occurred.

    def test_the_graph_lets_go_back_whom_the_function_does(self):
        state = update_state.UpdateState(0, Lineage())

        @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
        def ask(lineage):
            zero = tf.constant(0, tf.int64)
            sender = update_state.Sender(zero, zero, lineage, zero)
            return state.set_back("roll_back", sender, tf.constant(True))

        decided = set()

        @hypothesis.settings(max_examples=300, deadline=None)
        @hypothesis.given(
            _NUMBERED_LINES, _NUMBERED_LINES, st.integers(0, 3), st.booleans()
        )
        def decides_alike(served, mine, shared, is_longer):
            mine = served[: 3 if is_longer else shared] + mine
            served, mine = Lineage(tuple(served)), Lineage(tuple(mine))
            state.lineage.assign(str(served))
            state.step.assign(7)
            try:
                ask(str(mine))
                answered = True
            except tf.errors.InvalidArgumentError:
                answered = False
            assert answered == lineage_lib.may_go_back(served, mine)
            left = str(mine if answered else served)
            assert state.lineage.numpy().decode() == left
            assert int(state.step) == (0 if answered else 7)
            decided.add((answered, len(mine.branches) > len(served.branches)))

        decides_alike()
        self.assertLen(decided, 4)

    def test_each_branch_is_newer_than_all_before_it(self):
        job = Lineage().branched(0)
        first = job.branched(100)
        second = job.branched(100, after=first)
        third = second.branched(150)
        numbers = [line.number for line in (job, first, second, third)]
        self.assertEqual(numbers, [0, 1, 2, 3])
        self.assertTrue(lineage_lib.may_go_back(first, second))
        self.assertTrue(lineage_lib.may_go_back(first, third))
        self.assertFalse(lineage_lib.may_go_back(second, first))
        self.assertFalse(lineage_lib.may_go_back(third, second))
        self.assertFalse(lineage_lib.may_go_back(first, job))

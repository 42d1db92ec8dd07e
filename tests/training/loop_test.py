"""Tests of the outer loop: when actions run, and when checkpoints are written."""

import contextlib
import dataclasses
import os
import signal
import sys
import threading

import numpy as np
import pytest

from monolith_tf import testing
from monolith_tf.distribute import exits
from monolith_tf.training import actions
from monolith_tf.training import judges
from monolith_tf.training import loop
from monolith_tf.training import run as run_lib
from monolith_tf.training import stepper as stepper_lib
from tests.training import fakes


def _train(run, acts, stepper=None, steps_per_loop=3):
    stepper = stepper or fakes.Stepper()
    loop.train(
        run,
        stepper,
        acts,
        steps_per_loop=steps_per_loop,
        explain=lambda batch: f"Batch {batch}.",
    )
    return stepper


def _interrupt_at(step):
    def at_step(reached):
        if reached >= step:
            os.kill(os.getpid(), signal.SIGINT)

    return at_step


class LoopTest(testing.TestCase):
    def test_calls_end_where_something_is_due(self):
        run = fakes.run(total_steps=10)
        stepper = _train(run, [actions.Log(4)])
        self.assertEqual(stepper.calls, [(0, 3), (3, 1), (4, 3), (7, 1), (8, 2)])
        self.assertEqual([s for s, _ in run.recorder.of("train")], [4, 8, 10])

    def test_every_action_begins_once_before_the_first_step(self):
        stepper, began = fakes.Stepper(), []

        class Noting(actions.Action):
            def begin(self, run):
                began.append((run.progress.step, list(stepper.calls)))

        run = fakes.run(total_steps=9, progress=run_lib.Progress(step=4))
        _train(run, [Noting(), Noting()], stepper)
        self.assertEqual(began, [(4, []), (4, [])])

    def test_what_is_never_due_is_never_asked_to_act(self):
        class Never(actions.Action):
            def act(self, run):
                raise AssertionError("was not due")

        run = fakes.run(total_steps=10)
        _train(run, [Never(), actions.Log(4), actions.SaveCheckpoint([], None)])
        self.assertEqual(run.progress.step, 10)
        self.assertEqual(run.checkpoints.steps, [10])

    def test_counts_steps_batches_and_examples(self):
        run = fakes.run(total_steps=10)
        _train(run, [actions.Log(4)])
        progress = run.progress
        self.assertEqual(
            (progress.step, progress.batch, progress.examples), (10, 10, 100)
        )
        seen = [values["examples"] for _, values in run.recorder.of("train")]
        self.assertEqual(seen, [40, 80, 100])

    def test_counts_what_was_clipped_on_top_of_what_a_checkpoint_says(self):
        class Clipping(fakes.Stepper):
            def take(self, run, plan):
                taken = super().take(run, plan)
                clipped = {"age": np.int64(7), "price": np.int64(2)}
                result = taken.result._replace(clipped=clipped)
                return dataclasses.replace(taken, result=result)

        run = fakes.run(total_steps=9, progress=run_lib.Progress(clipped={"age": 100}))
        _train(run, [], Clipping())
        self.assertEqual(run.progress.clipped, {"age": 121, "price": 6})

    def test_a_log_line_is_the_mean_since_the_last_one(self):
        run = fakes.run(total_steps=8)
        _train(run, [actions.Log(4)])
        step, values = run.recorder.of("train")[-1]
        self.assertEqual(step, 8)
        self.assertEqual(values["loss"], 0.5)
        self.assertEqual(values["loss/half"], 0.25)
        self.assertEqual(values["gradient_norm"], 2.0)
        self.assertEqual(values["examples_per_sec"], 40.0)

    def test_all_that_want_a_checkpoint_share_one(self):
        values = iter([1.0, 2.0, 1.5, 3.0])
        run = fakes.run(total_steps=16, evaluate=lambda split: {"auc": next(values)})
        exported = []

        class Export(actions.EverySteps):
            def work(self, run):
                run.want_checkpoint(lambda saved: exported.append(saved.step))

        acts = [
            actions.Evaluate(4, [judges.KeepBest("auc", rises=True)]),
            Export(8),
            actions.SaveCheckpoint([4, 8], None),
        ]
        _train(run, acts)
        self.assertEqual(run.checkpoints.steps, [4, 8, 12, 16])
        self.assertEqual(exported, [8, 16])
        names = [name for name, _, _ in run.checkpoints.best]
        self.assertEqual(names, ["ckpt-00000004", "ckpt-00000008", "ckpt-00000016"])
        # The metrics of the step's evaluation are in its checkpoint.
        found = [
            state["progress"]["metrics"]["auc"] for state in run.checkpoints.states
        ]
        self.assertEqual(found, [1.0, 2.0, 1.5, 3.0])

    def test_the_last_step_is_saved_once_with_its_evaluation(self):
        run = fakes.run(total_steps=10)
        _train(run, [actions.Evaluate(4), actions.SaveCheckpoint([5], None)])
        self.assertEqual(run.checkpoints.steps, [5, 10])
        self.assertEqual([s for s, _ in run.recorder.of("eval")], [4, 8, 10])
        self.assertEqual(
            run.checkpoints.states[-1]["progress"]["metrics"], {"loss": 1.0}
        )

    def test_nothing_is_written_where_a_resumed_run_has_nothing_to_do(self):
        run = fakes.run(total_steps=10)
        _train(run, [actions.SaveCheckpoint([5], None)])
        again = fakes.run(total_steps=10, progress=run.progress)
        again.window, again.saved = run.window, run.saved
        _train(again, [actions.SaveCheckpoint([5], None)])
        self.assertEqual(again.checkpoints.steps, [])

    def test_the_end_of_the_data_ends_the_run(self):
        run = fakes.run()
        _train(run, [actions.SaveCheckpoint([100], None)], fakes.Stepper(num_batches=7))
        self.assertEqual(run.progress.step, 7)
        self.assertEqual(run.checkpoints.steps, [7])

    def test_early_stop_ends_the_run_and_its_checkpoint_lets_a_run_go_on(self):
        run = fakes.run(total_steps=100)
        judge = judges.EarlyStop("loss", rises=False, patience=2)
        _train(run, [actions.Evaluate(5, [judge]), actions.SaveCheckpoint([50], None)])
        self.assertEqual(run.progress.step, 15)
        self.assertStartsWith(run.progress.stop, "early: `loss` did not improve")
        self.assertEqual(run.checkpoints.steps, [15])
        self.assertEqual(run.checkpoints.states[-1]["progress"]["stop"], "")

    def test_a_loss_that_is_not_finite_is_an_error_that_names_the_batch(self):
        run = fakes.run(total_steps=100)
        with self.assertRaisesRegex(
            loop.NonFiniteLossError, r"loss of step 3 is not finite\. Batch 2\."
        ):
            _train(
                run, [actions.SaveCheckpoint([50], None)], fakes.Stepper(finite=False)
            )
        self.assertEqual(run.checkpoints.steps, [])
        self.assertEqual(run.progress.examples, 20)

    def test_maintenance_is_due_every_so_many_steps(self):
        run = fakes.run(total_steps=10)
        stepper = fakes.Stepper()
        stepper.maintain_every = 4
        _train(run, [], stepper, steps_per_loop=2)
        self.assertEqual(run.step.network.store.maintained, [4, 8])

    def test_an_interrupted_run_saves_logs_and_evaluates_when_resumed(self):
        run = fakes.run(total_steps=20)

        def acts():
            return [
                actions.Log(8),
                actions.Evaluate(8),
                actions.SaveCheckpoint([100], None),
            ]

        with self.assertRaisesRegex(
            loop.InterruptedRun, "step 8; wrote the checkpoint ckpt-00000008"
        ):
            _train(run, acts(), fakes.Stepper(at_step=_interrupt_at(8)))
        self.assertEqual(run.checkpoints.steps, [8])
        self.assertEqual([s for s, _ in run.recorder.of("train")], [8])
        self.assertEqual(run.recorder.of("eval"), [])
        saved = run_lib.Progress(**run.checkpoints.states[-1]["progress"])
        self.assertEqual((saved.stop, saved.overdue), ("", ["Evaluate"]))
        resumed = fakes.run(total_steps=20, progress=saved)
        _train(resumed, acts())
        self.assertEqual([s for s, _ in resumed.recorder.of("eval")], [8, 16, 20])
        self.assertEqual(resumed.checkpoints.states[-1]["progress"]["overdue"], [])

    def test_an_interrupted_run_leaves_nothing_overdue_that_was_not_due(self):
        run = fakes.run(total_steps=20)
        acts = [actions.Evaluate(8), actions.SaveCheckpoint([100], None)]
        with pytest.raises(loop.InterruptedRun):
            _train(run, acts, fakes.Stepper(at_step=_interrupt_at(6)))
        self.assertEqual(run.progress.overdue, [])

    def test_a_run_that_makes_way_for_a_new_start_leaves_the_same(self):
        run = fakes.run(total_steps=20)
        acts = [actions.Log(8), actions.Evaluate(8), actions.SaveCheckpoint([9], None)]

        def make_way(reached):
            if reached >= 8:
                run.stop("interrupted: worker-1 is given up")

        _train(run, acts, fakes.Stepper(at_step=make_way))
        self.assertEqual(run.checkpoints.steps, [8])
        self.assertEqual([s for s, _ in run.recorder.of("train")], [8])
        self.assertEqual(run.recorder.of("eval"), [])
        saved = run_lib.Progress(**run.checkpoints.states[-1]["progress"])
        self.assertEqual((saved.stop, saved.overdue), ("", ["Evaluate"]))

    def test_an_interrupt_counts_more_than_a_new_start(self):
        run = fakes.run(total_steps=20)

        def both(reached):
            if reached >= 9:
                os.kill(os.getpid(), signal.SIGINT)
                run.stop("interrupted: worker-1 is given up")

        with pytest.raises(loop.InterruptedRun):
            _train(
                run,
                [actions.SaveCheckpoint([100], None)],
                fakes.Stepper(at_step=both),
            )
        self.assertEqual(run.checkpoints.steps, [9])

    def test_an_interrupted_run_whose_workers_do_not_return_says_so(self):
        def stuck(reached):
            raise exits.StuckError("worker-1 is gone.")

        def interrupted_and_stuck(reached):
            os.kill(os.getpid(), signal.SIGINT)
            stuck(reached)

        with self.assertRaisesRegex(exits.StuckError, r"^worker-1 is gone\.$"):
            _train(fakes.run(total_steps=20), [], fakes.Stepper(at_step=stuck))
        with self.assertRaisesRegex(
            ConnectionError, "Interrupted, but no checkpoint could be written: worker-1"
        ):
            _train(
                fakes.run(total_steps=20),
                [],
                fakes.Stepper(at_step=interrupted_and_stuck),
            )

    def test_a_failing_action_at_the_end_loses_no_checkpoint(self):
        def fail(split):
            raise ValueError("no such file")

        run = fakes.run(total_steps=4, evaluate=fail)
        acts = [actions.SaveCheckpoint([2, 4], None), actions.Evaluate(100)]
        with self.assertRaisesRegex(ValueError, "no such file"):
            _train(run, acts)
        self.assertEqual(run.checkpoints.steps, [2, 4])

    def test_other_signal_handlers_are_put_back(self):
        before = signal.getsignal(signal.SIGTERM)
        _train(fakes.run(total_steps=4), [])
        self.assertIs(signal.getsignal(signal.SIGTERM), before)

    def test_another_interrupt_is_not_waited_for(self):
        former = signal.getsignal(signal.SIGINT)
        seen = []

        def twice(reached):
            os.kill(os.getpid(), signal.SIGINT)
            seen.append(signal.getsignal(signal.SIGINT))
            os.kill(os.getpid(), signal.SIGINT)

        with self.assertRaises(KeyboardInterrupt) as caught:
            _train(fakes.run(total_steps=20), [], fakes.Stepper(at_step=twice))
        self.assertNotIsInstance(caught.exception, loop.InterruptedRun)
        self.assertEqual(seen, [former])
        self.assertIs(signal.getsignal(signal.SIGINT), former)

    def test_sigterm_interrupts_too(self):
        run = fakes.run(total_steps=20)
        stepper = fakes.Stepper(
            at_step=lambda reached: os.kill(os.getpid(), signal.SIGTERM)
        )
        with self.assertRaises(loop.InterruptedRun):
            _train(run, [actions.SaveCheckpoint([100], None)], stepper)
        self.assertEqual(run.checkpoints.steps, [3])

    def test_a_signal_while_another_is_handled_stops_nothing_for_good(self):
        def too_late(number, frame):
            raise TimeoutError("It waits for itself.")

        def interrupt(lines):
            """Sends a signal, and a second one some lines into its handler."""

            def trace(frame, event, arg):
                nonlocal left
                if event == "line" and frame.f_code.co_name in ("handler", "set"):
                    left -= 1
                    if not left:
                        signal.raise_signal(signal.SIGINT)
                return trace

            left = lines
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                sys.settrace(before)

        former = signal.signal(signal.SIGALRM, too_late)
        self.addCleanup(signal.signal, signal.SIGALRM, former)
        for lines in range(1, 8):
            with loop._signals() as interrupted:
                signal.alarm(20)
                # The second one acts like any signal after the first was noted.
                with contextlib.suppress(KeyboardInterrupt):
                    interrupt(lines)
                signal.alarm(0)
                self.assertTrue(interrupted())

    def test_a_run_in_another_thread_leaves_signals_alone(self):
        run, before = fakes.run(total_steps=4), signal.getsignal(signal.SIGINT)
        seen = []
        stepper = fakes.Stepper(
            at_step=lambda reached: seen.append(signal.getsignal(signal.SIGINT))
        )
        thread = threading.Thread(target=_train, args=(run, [], stepper))
        thread.start()
        thread.join(timeout=30)
        self.assertEqual(run.progress.step, 4)
        self.assertEqual(set(seen), {before})

    def test_whoever_listens_hears_of_every_call(self):
        run, heard = fakes.run(total_steps=7), []
        loop.train(
            run,
            fakes.Stepper(),
            [],
            steps_per_loop=3,
            explain=str,
            on_steps=lambda run: heard.append((run.progress.step, run.window.steps)),
        )
        self.assertEqual(heard, [(3, 3), (6, 6), (7, 7)])

    def test_a_run_that_is_over_takes_no_step(self):
        for progress in (
            run_lib.Progress(step=4),
            run_lib.Progress(step=5),
            run_lib.Progress(step=1, stop="early: enough"),
        ):
            stepper = _train(fakes.run(total_steps=4, progress=progress), [])
            self.assertEqual(stepper.calls, [])


class _Busy(fakes.Stepper):
    """Has running steps except where the plan says stop, like a cluster."""

    def __init__(self):
        super().__init__()
        self.stops = []
        self._is_quiet = True

    @property
    def is_quiet(self):
        return self._is_quiet

    def take(self, run, plan):
        self.stops.append(plan.stop)
        capped = stepper_lib.Plan(lambda step: min(plan.end(step), plan.stop), 0)
        taken = super().take(run, capped)
        self._is_quiet = run.progress.step + int(taken.result.steps) == plan.stop
        return taken


class BusyLoopTest(testing.TestCase):
    def test_what_needs_quiet_waits_for_the_stop_and_the_rest_does_not(self):
        class Noting(actions.EverySteps):
            def __init__(self, every, *, needs_quiet):
                super().__init__(every)
                self.needs_quiet = needs_quiet
                self.steps = []

            def work(self, run):
                self.steps.append((run.progress.step, stepper.is_quiet))

        stepper, run = _Busy(), fakes.run(total_steps=14)
        stepper.maintain_every = 5
        loud, quiet = Noting(3, needs_quiet=False), Noting(6, needs_quiet=True)
        _train(run, [loud, quiet], stepper, steps_per_loop=2)
        self.assertEqual([step for step, _ in loud.steps], [3, 6, 9, 12])
        self.assertEqual(loud.steps[0], (3, False))
        self.assertEqual(quiet.steps, [(6, True), (12, True)])
        # Maintenance stops the steps too, and counts from the last one.
        self.assertEqual(run.step.network.store.maintained, [5, 10])
        self.assertEqual(sorted(set(stepper.stops)), [5, 6, 10, 12, 14])

    def test_steps_that_are_finished_at_the_end_count(self):
        class Late(fakes.Stepper):
            def finish(self):
                result = fakes.Stepper().take(
                    fakes.run(), stepper_lib.Plan(lambda step: step + 2, 2)
                )
                return [result]

        run = fakes.run(total_steps=6)
        _train(run, [], Late())
        self.assertEqual((run.progress.step, run.window.steps), (8, 8))

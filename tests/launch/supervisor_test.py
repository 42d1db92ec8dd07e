"""What the supervisor does, event by event, without processes."""

import signal

import hypothesis
import pytest
from hypothesis import strategies

from monolith_tf.distribute.task import Task
from monolith_tf.launch.actions import Say
from monolith_tf.launch.actions import Send
from monolith_tf.launch.actions import Start
from monolith_tf.launch.states import Outcome
from monolith_tf.launch.supervisor import Supervisor

KILLED = -signal.SIGKILL


def make_tasks(ps, workers, evaluator):
    cluster = {
        "chief": ("chief:1",),
        "ps": tuple(f"ps{i}:1" for i in range(ps)),
        "worker": tuple(f"worker{i}:1" for i in range(workers)),
    }
    chief = Task(kind="chief", index=0, cluster=cluster)
    tasks = [chief, *chief.others()]
    if evaluator:
        tasks.append(Task(kind="evaluator", index=0, cluster=cluster))
    return tasks


class Job:
    """Drives a supervisor with its own clock."""

    def __init__(self, *, ps=1, workers=2, evaluator=False, max_restarts=3):
        tasks = make_tasks(ps, workers, evaluator)
        self.supervisor = Supervisor(tasks, max_restarts=max_restarts)
        self.now = 1000.0
        self.said = []
        self.begun = self._sort(self.supervisor.begin(self.now))

    def ends(self, name, code):
        return self._sort(self.supervisor.ended(name, code, self.now))

    def interrupt(self, *, trains=True):
        return self._sort(self.supervisor.interrupt(self.now, trains=trains))

    def hangs(self, name):
        return self._sort(self.supervisor.hangs(name, 120.0))

    def lost_server(self):
        return self._sort(self.supervisor.lost_server(self.now))

    def after(self, secs):
        self.now += secs
        return self._sort(self.supervisor.tick(self.now))

    def state(self, name):
        return self.supervisor.tasks[name].state

    @property
    def outcome(self):
        return self.supervisor.outcome

    def _sort(self, actions):
        self.said += [action.text for action in actions if isinstance(action, Say)]
        return [action for action in actions if not isinstance(action, Say)]


def term(*names):
    return [Send(name, signal.SIGTERM) for name in names]


def kill(*names):
    return [Send(name, signal.SIGKILL) for name in names]


def starts(*names):
    return [Start(name) for name in names]


def test_all_tasks_start_at_once():
    job = Job(ps=2, workers=1, evaluator=True)
    assert job.begun == starts("chief", "ps-0", "ps-1", "worker-0", "evaluator-0")
    assert job.outcome is None


def test_restarts_must_not_be_negative():
    tasks = make_tasks(1, 1, False)
    with pytest.raises(ValueError, match=r"not be negative\. Received: .*=-1\."):
        Supervisor(tasks, max_restarts=-1)


class TestTheEnd:
    def test_the_others_end_by_themselves(self):
        job = Job()
        assert job.ends("chief", 0) == []
        for name in ("ps-0", "worker-0"):
            assert job.ends(name, 0) == []
            assert job.outcome is None
        job.ends("worker-1", 0)
        assert job.outcome == Outcome(0)

    def test_who_does_not_end_is_made_to(self):
        job = Job(workers=1)
        job.ends("chief", 0)
        job.ends("worker-0", 0)
        assert job.after(4) == []
        assert job.after(2) == term("ps-0")
        assert job.after(5) == []
        assert job.after(5) == kill("ps-0")
        job.ends("ps-0", KILLED)
        assert job.outcome == Outcome(0)

    def test_the_evaluator_has_all_the_time_it_needs(self):
        job = Job(workers=1, evaluator=True)
        for name in ("chief", "ps-0", "worker-0"):
            job.ends(name, 0)
        assert job.after(10_000) == []
        assert job.outcome is None
        job.ends("evaluator-0", 0)
        assert job.outcome == Outcome(0)

    def test_an_evaluator_that_dies_after_training_starts_again(self):
        job = Job(workers=1, evaluator=True)
        for name in ("chief", "ps-0", "worker-0"):
            job.ends(name, 0)
        job.ends("evaluator-0", KILLED)
        assert job.outcome is None
        assert job.after(1) == starts("evaluator-0")
        job.ends("evaluator-0", 0)
        assert job.outcome == Outcome(0)

    def test_a_job_without_its_last_evaluations_has_failed(self):
        job = Job(workers=1, evaluator=True, max_restarts=0)
        job.ends("evaluator-0", 1)
        assert job.said == [
            "evaluator-0 ended with exit code 1, after 0 restarts in a row; the job "
            "continues without it."
        ]
        for name in ("chief", "ps-0", "worker-0"):
            job.ends(name, 0)
        assert job.outcome == Outcome(
            1, "Training is done, but evaluator-0 died too often.", "evaluator-0"
        )

    def test_who_sees_the_end_before_the_chief_exits_is_not_missed(self):
        job = Job(workers=1)
        job.ends("worker-0", 0)
        job.ends("ps-0", 0)
        assert job.after(59) == []
        job.ends("chief", 0)
        assert job.outcome == Outcome(0)
        assert job.said == []

    @pytest.mark.parametrize("code", [-signal.SIGTERM, -signal.SIGSEGV])
    def test_a_chief_that_is_done_and_does_not_get_away(self, code):
        job = Job(workers=1)
        job.ends("worker-0", 0)
        assert job.after(60) == term("chief")
        assert job.after(10) == kill("chief")
        job.ends("ps-0", KILLED)
        job.ends("chief", code)
        assert job.outcome == Outcome(0)
        assert job.said == []

    @pytest.mark.parametrize("code", [1, 2, 3, 130])
    def test_an_error_of_the_chief_is_that_of_the_job(self, code):
        job = Job(workers=1)
        assert job.ends("chief", code) == term("ps-0", "worker-0")
        job.ends("ps-0", -signal.SIGTERM)
        job.ends("worker-0", -signal.SIGTERM)
        assert job.outcome == Outcome(
            code, f"The chief ended with exit code {code}.", "chief"
        )

    def test_wrong_use_is_wrong_for_all(self):
        job = Job(workers=1)
        assert job.ends("worker-0", 2) == term("chief")
        assert job.after(31) == kill("chief")
        assert job.ends("chief", KILLED) == term("ps-0")
        job.ends("ps-0", 143)
        assert job.outcome == Outcome(2, "worker-0 ended with exit code 2.", "worker-0")


class TestWorkers:
    def test_a_dead_worker_starts_again_ever_later(self):
        job = Job()
        for restarts, wait in ((1, 1), (2, 2), (3, 4)):
            assert job.ends("worker-1", KILLED) == []
            assert job.after(wait - 0.1) == []
            assert job.after(0.1) == starts("worker-1")
            assert job.supervisor.tasks["worker-1"].restarts == restarts
        assert job.said[1] == (
            "worker-1 was killed by SIGKILL; it restarts in 2 s (2 of 3)."
        )

    def test_the_wait_has_a_limit(self):
        job = Job(max_restarts=10)
        for wait in (1, 2, 4, 8, 16, 32, 60, 60):
            job.ends("worker-1", 1)
            assert job.after(wait - 0.1) == []
            assert job.after(0.1) == starts("worker-1")

    def test_the_job_goes_on_without_a_worker(self):
        job = Job(max_restarts=1)
        job.ends("worker-0", KILLED)
        job.after(1)
        assert job.ends("worker-0", KILLED) == []
        assert job.after(10_000) == []
        assert job.state("worker-0") == "lost"
        assert job.said[-1] == (
            "worker-0 was killed by SIGKILL, after 1 restarts in a row; the job "
            "continues without it."
        )
        for name in ("chief", "ps-0", "worker-1"):
            job.ends(name, 0)
        assert job.outcome == Outcome(0)

    def test_without_any_worker_it_ends(self):
        job = Job(max_restarts=0)
        job.ends("worker-0", -signal.SIGSEGV)
        assert job.ends("worker-1", -signal.SIGSEGV) == term("chief")
        assert job.ends("chief", 130) == term("ps-0")
        job.ends("ps-0", -signal.SIGTERM)
        assert job.outcome == Outcome(
            1,
            "worker-1 was killed by SIGSEGV, after 0 restarts in a row, and no other "
            "worker is left.",
            "worker-1",
        )

    def test_after_a_long_life_a_death_is_the_first_one(self):
        job = Job(max_restarts=1)
        for _ in range(3):
            job.ends("worker-0", KILLED)
            assert job.after(1) == starts("worker-0")
            job.after(600)
        assert job.said[-1].endswith("(1 of 1).")

    def test_a_worker_that_missed_the_chief_comes_back(self):
        job = Job()
        job.ends("worker-0", 76)
        assert job.after(10) == []
        assert job.after(1) == starts("worker-0")
        assert job.said == [
            "worker-0 left while the chief runs; it restarts in 1 s (1 of 3)."
        ]


class TestTheCore:
    def test_a_dead_parameter_server(self):
        job = Job(ps=2)
        # The chief itself sees it, and ends.
        assert job.ends("ps-0", KILLED) == term("ps-1")
        job.ends("ps-1", -signal.SIGTERM)
        assert job.after(2) == []
        job.ends("chief", 75)
        assert job.after(0) == starts("chief", "ps-0", "ps-1")
        assert job.state("worker-0") == "running"
        assert job.said == [
            "ps-0 was killed by SIGKILL; the chief and the parameter servers restart "
            "from the last checkpoint (1 of 3)."
        ]

    def test_a_chief_that_does_not_notice(self):
        job = Job()
        job.ends("ps-0", KILLED)
        assert job.after(29) == []
        assert job.after(1) == kill("chief")
        job.ends("chief", KILLED)
        assert job.after(0) == starts("chief", "ps-0")

    @pytest.mark.parametrize("code", [75, KILLED, -signal.SIGABRT])
    def test_a_chief_that_dies_or_lost_a_parameter_server(self, code):
        job = Job()
        assert job.ends("chief", code) == term("ps-0")
        assert job.after(10) == kill("ps-0")
        job.ends("ps-0", KILLED)
        assert job.after(0) == starts("chief", "ps-0")

    def test_too_many_deaths(self):
        job = Job(workers=1, max_restarts=2)
        for wait in (1, 2):
            job.ends("chief", KILLED)
            job.ends("ps-0", -signal.SIGTERM)
            assert job.after(wait) == starts("chief", "ps-0")
        assert job.ends("ps-0", KILLED) == term("chief")
        assert job.ends("chief", 75) == term("worker-0")
        job.ends("worker-0", -signal.SIGTERM)
        assert job.outcome == Outcome(
            1, "ps-0 was killed by SIGKILL, after 2 restarts in a row.", "ps-0"
        )

    def test_all_die(self):
        job = Job(evaluator=True)
        for name in list(job.supervisor.tasks):
            job.ends(name, KILLED)
        started = job.after(1)
        assert set(started) == set(starts(*job.supervisor.tasks))
        assert len(started) == 5

    def test_a_lost_worker_has_one_more_try(self):
        job = Job(max_restarts=1)
        job.ends("worker-0", KILLED)
        job.after(1)
        job.ends("worker-0", KILLED)
        assert job.state("worker-0") == "lost"
        job.ends("chief", 75)
        job.ends("ps-0", -signal.SIGTERM)
        assert job.after(1) == starts("chief", "ps-0", "worker-0")
        job.ends("worker-0", KILLED)
        assert job.state("worker-0") == "lost"

    def test_a_chief_killed_when_it_was_done_needs_no_other_start(self):
        job = Job(workers=1, evaluator=True)
        job.ends("chief", KILLED)
        job.ends("evaluator-0", 0)  # It saw that the chief is done.
        job.ends("ps-0", -signal.SIGTERM)
        job.ends("worker-0", 0)
        assert job.outcome == Outcome(0, "")

    def test_a_chief_that_was_done_needs_no_parameter_servers(self):
        job = Job(workers=1)
        job.ends("ps-0", KILLED)
        job.ends("chief", 0)
        job.ends("worker-0", 0)
        assert job.outcome == Outcome(0)

    def test_a_parameter_server_that_leaves_a_running_chief(self):
        job = Job()
        job.ends("ps-0", 76)
        assert job.after(10) == []
        assert job.state("chief") == "stopping"
        assert job.said[0].startswith("ps-0 left while the chief runs; the chief and")


class TestHangs:
    def test_a_task_that_hangs_is_killed_and_starts_again(self):
        job = Job()
        assert job.hangs("worker-1") == kill("worker-1")
        assert job.said == [
            "worker-1 was silent for 120 s while other tasks were not; ending it by "
            "SIGKILL."
        ]
        job.ends("worker-1", KILLED)
        assert job.hangs("worker-1") == []
        assert job.after(1) == starts("worker-1")

    def test_a_parameter_server_or_chief_that_hangs_takes_the_other_with_it(self):
        for name, other in (("ps-0", "chief"), ("chief", "ps-0")):
            job = Job()
            assert job.hangs(name) == kill(name)
            job.ends(name, KILLED)
            assert job.state(other) == "stopping"
            job.ends(other, 75 if other == "chief" else -signal.SIGTERM)
            assert job.after(1) == starts("chief", "ps-0")

    def test_who_is_being_stopped_is_left_to_that(self):
        job = Job()
        job.ends("chief", 75)
        assert job.hangs("ps-0") == []
        assert job.after(10) == kill("ps-0")

    def test_a_chief_that_says_what_it_lost_and_stays(self):
        job = Job()
        assert job.lost_server() == term("ps-0")
        assert job.lost_server() == []
        job.ends("ps-0", -signal.SIGTERM)
        assert job.after(30) == kill("chief")
        job.ends("chief", KILLED)
        assert job.after(1) == starts("chief", "ps-0")
        assert job.said == [
            "The chief lost a parameter server; the chief and the parameter servers "
            "restart from the last checkpoint (1 of 3)."
        ]

    def test_it_says_who_is_given_up(self):
        job = Job(max_restarts=0)
        assert job.supervisor.given_up == []
        job.hangs("worker-1")
        job.ends("worker-1", KILLED)
        assert job.supervisor.given_up == ["worker-1"]


class TestInterrupts:
    def test_the_chief_writes_a_checkpoint_first(self):
        job = Job(workers=1, evaluator=True)
        assert job.interrupt() == term("chief", "evaluator-0")
        assert job.said == [
            "Interrupted; the chief writes a checkpoint. Again: ends at once."
        ]
        job.ends("evaluator-0", -signal.SIGTERM)
        assert job.after(200) == []
        assert job.ends("chief", 130) == term("ps-0", "worker-0")
        job.ends("ps-0", 143)
        job.ends("worker-0", 143)
        assert job.outcome == Outcome(
            130, "Interrupted; the chief has written a checkpoint."
        )

    def test_a_chief_that_was_not_training_yet(self):
        job = Job(workers=1)
        job.interrupt(trains=False)
        job.ends("chief", -signal.SIGTERM)
        job.ends("ps-0", 143)
        job.ends("worker-0", 143)
        assert job.said == ["Interrupted; ending the tasks. Again: ends at once."]
        assert job.outcome == Outcome(
            130, "Interrupted; the chief did not train, and wrote no checkpoint."
        )

    def test_a_chief_that_takes_too_long(self):
        job = Job(workers=1)
        job.interrupt()
        assert job.after(300) == kill("chief")
        job.ends("chief", KILLED)
        job.ends("ps-0", 143)
        job.ends("worker-0", 143)
        assert job.outcome == Outcome(
            1,
            "The chief was killed by SIGKILL before it wrote a checkpoint.",
            "chief",
        )

    def test_the_second_one_ends_all_at_once(self):
        job = Job(workers=1)
        job.interrupt()
        assert job.interrupt() == kill("chief", "ps-0", "worker-0")
        for name in ("chief", "ps-0", "worker-0"):
            job.ends(name, KILLED)
        assert job.outcome == Outcome(130, "Interrupted.")

    def test_workers_come_back_for_the_steps_under_way(self):
        job = Job(workers=2)
        job.ends("worker-0", KILLED)
        job.interrupt()
        assert job.after(0) == starts("worker-0")
        job.ends("worker-1", KILLED)
        assert job.after(100) == starts("worker-1")
        assert job.ends("chief", 130) == term("ps-0", "worker-0", "worker-1")

    def test_a_worker_that_waits_when_the_chief_ends_stays_away(self):
        job = Job(workers=2)
        job.interrupt()
        job.ends("worker-0", KILLED)
        assert job.ends("chief", 130) == term("ps-0", "worker-1")
        assert job.after(5) == []
        assert job.state("worker-0") == "ended"

    def test_no_worker_is_left_for_the_steps_under_way(self):
        job = Job(workers=1, max_restarts=0)
        job.interrupt()
        assert job.ends("worker-0", KILLED) == term("chief")
        assert job.after(30) == kill("chief")

    def test_no_worker_comes_back_where_nothing_is_trained(self):
        job = Job(workers=1)
        job.ends("worker-0", KILLED)
        job.interrupt(trains=False)
        assert job.state("worker-0") == "ended"

    def test_no_parameter_server_starts_any_more(self):
        job = Job(workers=1)
        job.interrupt()
        job.ends("ps-0", KILLED)
        assert job.after(100) == []
        job.ends("chief", 75)
        assert job.outcome is None
        job.ends("worker-0", -signal.SIGTERM)
        assert job.outcome.message == (
            "The chief lost a parameter server before it wrote a checkpoint."
        )

    def test_while_the_chief_is_down(self):
        job = Job(workers=1)
        job.ends("chief", KILLED)
        job.ends("ps-0", -signal.SIGTERM)
        assert job.interrupt() == term("worker-0")
        job.ends("worker-0", -signal.SIGTERM)
        assert job.outcome == Outcome(130, "Interrupted.")

    def test_while_the_core_is_being_stopped(self):
        job = Job(workers=1)
        job.ends("chief", KILLED)
        assert job.interrupt() == term("worker-0")
        job.ends("worker-0", -signal.SIGTERM)
        job.ends("ps-0", -signal.SIGTERM)
        assert job.outcome == Outcome(130, "Interrupted.")

    def test_while_the_evaluator_is_at_its_last_checkpoint(self):
        job = Job(workers=1, evaluator=True)
        for name in ("chief", "ps-0", "worker-0"):
            job.ends(name, 0)
        assert job.interrupt() == term("evaluator-0")
        job.ends("evaluator-0", -signal.SIGTERM)
        assert job.outcome == Outcome(130, "Interrupted.")


@hypothesis.example([(2, 1, 0.0), (0, 0, 30.0)])
@hypothesis.settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.integers(0, 9),
            strategies.sampled_from([0, 1, 75, 76, 130, KILLED, None]),
            strategies.sampled_from([0.0, 1.0, 30.0]),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_every_job_ends_whatever_happens(script):
    job = Job(evaluator=True, max_restarts=2)
    running = {action.name for action in job.begun}

    def follow(actions):
        killed = []
        for action in actions:
            if isinstance(action, Start):
                assert action.name not in running
                running.add(action.name)
            else:
                assert action.name in running
                if action.signal == signal.SIGKILL:
                    killed.append(action.name)
        for name in killed:
            end(name, KILLED)

    def end(name, code):
        if name in running:
            running.discard(name)
            follow(job.ends(name, code))

    for turn in range(2000):
        if job.outcome is not None:
            break
        which, code, secs = script[turn % len(script)]
        follow(job.after(secs))
        if code is None and job.outcome is None:
            follow(job.interrupt())
        elif running:
            end(sorted(running)[which % len(running)], code)
        follow(job.after(1.0))
    assert job.outcome is not None
    assert not running

"""Conditions say what is, since when, and, where a pool cannot start, the one reason why; and they do not flap."""

import math
from dataclasses import replace

import pytest

from millrace_operator.core import conditions as c
from millrace_operator.core.decide import decide
from millrace_operator.core.reasons import Reason
from millrace_operator.core.troubles import CLEAR_S, SHOW_S, PodFacts, Refusal, Shown, debounce, find, usable
from millrace_operator.core.vocabulary import Learned, Memory, Mode, Observation, Policy

NOW = 1_764_072_190.0
POLICY = Policy(minimum=0, maximum=4)
POD = PodFacts(name="llama-1", created=NOW)


def shown_after(pods, seconds=SHOW_S, refused="", objects=()):
    """What is shown once it was seen for so long."""
    first = debounce(Shown(), find(pods, refused, 40.0, NOW, objects), NOW)
    return debounce(first, find(pods, refused, 40.0, NOW + seconds, objects), NOW + seconds)


def ready(pods=(), shown=None, *, policy=POLICY, desired=1, leaves="", made=True, now=NOW):
    return c.ready(policy, pods, shown or Shown(), desired=desired, ready_s=40.0, leaves=leaves, made=made, now=now)


@pytest.mark.parametrize(
    ("facts", "reason", "sentence"),
    [
        (
            {"waiting": "ImagePullBackOff", "message": 'Back-off pulling image "x:1"'},
            Reason.IMAGE_PULL_FAILED,
            'an image of pod llama-1 cannot be pulled: Back-off pulling image "x:1"',
        ),
        (
            {"unschedulable": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."},
            Reason.UNSCHEDULABLE,
            "no node takes pod llama-1: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu",
        ),
        (
            {"waiting": "CrashLoopBackOff", "restarts": 3, "message": "out of memory\n"},
            Reason.CRASH_LOOP,
            "pod llama-1 ends again and again (3 restarts): out of memory",
        ),
        ({"restarts": 1}, Reason.CRASH_LOOP, "pod llama-1 ends again and again (1 restart)"),
        (
            {"waiting": "CreateContainerConfigError", "message": 'secret "hf" not found'},
            Reason.CONTAINER_CONFIG,
            'a container of pod llama-1 cannot be made: secret "hf" not found',
        ),
        ({"created": NOW - 81}, Reason.ENGINE_NOT_READY, "pod llama-1 runs but its engine is not ready"),
    ],
)
def test_a_pool_that_cannot_start_says_why_in_one_sentence(facts, reason, sentence):
    """The reason is a word for programs, the message is a sentence with Kubernetes' own words in it."""
    pod = replace(POD, **facts)
    saying = ready([pod], shown_after([pod]))
    assert (saying.holds, saying.reason, saying.message) == (False, reason, sentence)


def test_a_quota_is_told_although_there_is_no_pod():
    """The ReplicaSet could not make one; it comes before everything else."""
    message = 'pods "llama-2" is forbidden: exceeded quota: gpus'
    saying = ready([], shown_after([replace(POD, waiting="ErrImagePull")], refused=message))
    assert saying.reason is Reason.QUOTA_EXCEEDED
    assert message in saying.message
    assert ready([], shown_after([], refused="denied by policy")).reason is Reason.PODS_REFUSED


@pytest.mark.parametrize(
    ("refusal", "reason", "sentence"),
    [
        (
            Refusal("Service pool-a", 403, 'services "pool-a" is forbidden: exceeded quota: few'),
            Reason.QUOTA_EXCEEDED,
            'a quota of the namespace is used up: services "pool-a" is forbidden: exceeded quota: few',
        ),
        (
            Refusal("Deployment pool-a", 422, "denied by policy images.\n"),
            Reason.OBJECT_REFUSED,
            "the API server does not take Deployment pool-a: denied by policy images",
        ),
        (
            Refusal("Deployment pool-a", 409, 'Apply failed with 1 conflict: conflict with "kubectl-set": .spec.x'),
            Reason.FIELDS_TAKEN,
            (
                "somebody else has set fields of Deployment pool-a, so it stays as it is: Apply failed with 1 conflict:"
                ' conflict with "kubectl-set": .spec.x'
            ),
        ),
    ],
)
def test_an_object_that_the_api_server_refuses_is_told_in_its_words(refusal, reason, sentence):
    """Without workers that is why there are none; workers that are there go on, and with one that could be started so does zero."""
    shown = shown_after([], objects=[refusal])
    for saying in (ready([], shown), ready([], shown, desired=0, made=False)):
        assert (saying.holds, saying.reason, saying.message) == (False, reason, sentence)
    serving = ready([replace(POD, ready_since=NOW - 500)], shown)
    assert (serving.holds, serving.message) == (True, f"1 of 1 workers take tasks; {sentence}")
    zero = ready([], shown, desired=0)
    assert (zero.holds, zero.reason) == (True, Reason.AT_ZERO)
    assert zero.message.endswith(sentence)


def test_a_start_that_goes_well_shows_no_trouble():
    """Containers that are being made, and one pull that failed and then succeeded."""
    assert find([replace(POD, waiting="ContainerCreating")], "", 40.0, NOW) == []
    shown = debounce(Shown(), find([replace(POD, waiting="ErrImagePull")], "", 40.0, NOW), NOW)
    saying = ready([POD], debounce(shown, [], NOW + 5))
    assert (saying.reason, saying.message) == (Reason.STARTING, "the first worker is expected at 12:03:50Z")


def test_a_trouble_keeps_its_words_while_kubernetes_shows_its_faces_in_turns():
    """ErrImagePull, ImagePullBackOff and ContainerCreating for minutes: one sentence all the time, then it goes."""
    shown, sentences = Shown(), set()
    faces = [("ErrImagePull", "not found"), ("ImagePullBackOff", "Back-off 10 s"), ("ContainerCreating", "")]
    for second in range(0, 300, 5):
        waiting, message = faces[second // 5 % 3]
        shown = debounce(
            shown, find([replace(POD, waiting=waiting, message=message)], "", 40.0, NOW + second), NOW + second
        )
        if second > 2 * SHOW_S:
            sentences.add(ready([POD], shown, now=NOW + second).message)
    assert len(sentences) == 1
    assert debounce(shown, [], NOW + 290 + CLEAR_S).shown is None


def test_a_crash_loop_that_is_ready_for_moments_is_not_ready():
    """It becomes so once it has stayed ready for a while; a pool without trouble is ready at once."""
    loop = replace(POD, waiting="CrashLoopBackOff", restarts=4)
    shown = shown_after([loop])
    moment = replace(POD, restarts=4, ready_since=NOW + 12)
    during = debounce(shown, find([moment], "", 40.0, NOW + 14), NOW + 14)
    assert not ready([moment], during, now=NOW + 14).holds
    after = debounce(during, find([moment], "", 40.0, NOW + 50), NOW + 50)
    assert ready([moment], after, now=NOW + 50).reason is Reason.SERVING
    assert usable([moment], Shown(), NOW + 12) == 1


def test_a_pool_that_serves_tells_of_the_worker_that_does_not():
    """It is ready all the same."""
    good, bad = replace(POD, name="llama-0", ready_since=NOW - 500), replace(POD, waiting="ErrImagePull")
    saying = ready([good, bad], shown_after([good, bad]), desired=2)
    assert (saying.holds, saying.reason) == (True, Reason.SERVING)
    assert saying.message == "1 of 2 workers take tasks; an image of pod llama-1 cannot be pulled"


def test_zero_workers_are_ready_only_where_the_first_task_starts_one():
    """In mode Auto."""
    assert ready(desired=0).reason is Reason.AT_ZERO
    paused = ready(desired=0, policy=replace(POLICY, mode=Mode.PAUSED))
    assert (paused.holds, paused.reason) == (False, Reason.NO_WORKERS)
    assert ready(desired=2).reason is Reason.NO_WORKERS
    assert ready([replace(POD, ready_since=NOW)], leaves="it drains").reason is Reason.DELETING


def test_a_fixed_image_that_is_wrong_again_is_told_anew():
    """The words stay only while the pod that they name is there."""
    shown = shown_after([replace(POD, waiting="ErrImagePull", message="x:1 not found")])
    other = replace(POD, name="llama-2", waiting="ErrImagePull", message="x:2 not found")
    both = find([replace(other, name="llama-0"), replace(POD, waiting="ErrImagePull")], "", 40.0, NOW + 11)
    assert debounce(shown, both, NOW + 11).shown == shown.shown
    told = debounce(shown, find([other], "", 40.0, NOW + 12), NOW + 12)
    assert told.shown
    assert told.shown.sentence == "an image of pod llama-2 cannot be pulled: x:2 not found"


def test_a_time_changes_only_with_its_status():
    """Reason, message and generation may change beside it; other people's conditions stay."""
    other = c.merge([], [c.Saying("Theirs", True, Reason.VALID, "")], 1, NOW)
    first = c.merge(other, [c.draining(1), c.signal_fresh(0.0)], 1, NOW)
    second = c.merge(first, [c.draining(2), c.signal_fresh(20.0)], 2, NOW + 60)
    assert [x.type for x in second] == ["Draining", "SignalFresh", "Theirs"]
    assert second[0].last_transition_time == first[0].last_transition_time
    assert second[1].last_transition_time > first[1].last_transition_time
    assert second[0].message == "2 workers finish their last tasks"
    assert {x.observed_generation for x in second[:2]} == {2}
    assert c.merge(second, [c.draining(2), c.signal_fresh(21.0)], 2, NOW + 61) == second, "nothing to write"


@pytest.mark.parametrize(
    ("age_s", "holds", "reason"),
    [
        (15.0, True, Reason.FRESH),
        (15.1, False, Reason.STALE),
        (60.1, False, Reason.LOST),
        (math.inf, False, Reason.LOST),
    ],
)
def test_the_signal_is_fresh_stale_or_lost(age_s, holds, reason):
    """With the ages of the control law."""
    saying = c.signal_fresh(age_s)
    assert (saying.holds, saying.reason) == (holds, reason)


def test_a_limit_is_told_while_it_is_in_the_way():
    """Bounds of the spec, the step limit; a hold is none."""
    seen = Observation(replicas=4, ready=4, signal_age_s=0.0, waiting=900, work_s=9000.0)
    full = decide(POLICY, seen, Learned(40.0, 100.0), Memory(), NOW)
    assert c.scaling_limited(POLICY, full).reason is Reason.AT_MAXIMUM
    idle = decide(POLICY, replace(seen, waiting=0, work_s=0.0), Learned(40.0, 100.0), Memory(), NOW)
    assert c.scaling_limited(POLICY, idle).reason is Reason.WITHIN_LIMITS


def test_a_pool_that_buries_tasks_says_so_for_a_while():
    """Of a number that does not count on with the clock, so that nothing is written without news."""
    none = c.poisoned(0, -math.inf, NOW)
    assert (none.holds, none.reason) == (False, Reason.NO_DEAD_LETTERS)
    told = c.poisoned(1, NOW, NOW + 1)
    assert (told.holds, told.reason) == (True, Reason.DEAD_LETTERS)
    assert told.message.startswith("1 task was given up ")
    assert c.poisoned(1, NOW, NOW + c.LATELY_S - 1) == told
    assert not c.poisoned(1, NOW, NOW + c.LATELY_S).holds


def test_another_schema_in_the_cluster_is_told():
    """Of any kind, with both digests; who is older is not known and not claimed."""
    own = {"ModelRoute": "a1", "Tenant": "b2", "WorkerPool": "c3"}
    same = c.crd_outdated(own, own)
    assert (same.holds, same.reason) == (False, Reason.SCHEMA_CURRENT)
    told = c.crd_outdated({"ModelRoute": "a1", "Tenant": "", "Other": "d4"}, own)
    assert (told.holds, told.reason) == (True, Reason.SCHEMA_DIFFERS)
    assert told.message == (
        "the cluster's Tenant is without a digest, this operator's b2; the cluster's WorkerPool is not served, this"
        " operator's c3; install the CRDs and the operator of one release"
    )


def test_who_chooses_the_number_is_told():
    """Only in mode Auto the operator does."""
    assert [c.scaling_active(replace(POLICY, mode=mode)).holds for mode in Mode] == [True, False, False, False]

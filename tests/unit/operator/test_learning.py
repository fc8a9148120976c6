"""What the operator learns: times to ready, arrivals, service times, holds; and that it survives a restart."""

import json

import pytest

from millrace_operator.core.holds import ENOUGH, FAR_S, KEPT, LONGEST, Gap, Gaps, best, saw
from millrace_operator.core.learning import ColdStart, Estimates, Sample, Start, from_dict, to_dict


def learned(times):
    cold = ColdStart()
    for seconds in times:
        cold = cold.learn(seconds)
    return cold


def test_the_time_to_ready_is_about_the_eightieth_percentile():
    """Of pods that take 30 to 50 s, about four of five are ready by then."""
    assert learned([30, 50, 40, 35, 45, 40] * 10).ready_s == pytest.approx(46, abs=2.5)


def test_one_outlier_moves_the_time_to_ready_little_and_a_lasting_change_moves_it_all_the_way():
    """A pod that waited ten minutes for a node is one pod; ten of them are the truth."""
    usual = learned([40] * 20)
    assert usual.learn(600).ready_s < 1.5 * usual.ready_s
    slower = usual
    for _ in range(40):
        slower = slower.learn(120)
    assert slower.ready_s > 115


def test_a_pod_teaches_once_and_one_that_failed_teaches_nothing():
    """Not ready, or ready only after a container started again: neither says how long a start takes."""
    pods = [Start("a", 0.0, 40.0), Start("b", 0.0, None), Start("c", 0.0, 900.0, restarts=7)]
    first = Estimates().saw_pods(pods)
    assert first.cold_start == ColdStart().learn(40.0)
    assert first.saw_pods(pods) == first
    assert first.counted == {"a", "c"}
    later = first.saw_pods([Start("a", 0.0, 40.0), Start("b", 0.0, 50.0), Start("c", 0.0, 901.0)])
    assert later.cold_start == first.cold_start.learn(50.0)
    assert later.saw_pods([]).counted == frozenset()


def test_arrival_rates_come_from_a_counter_and_begin_anew_with_an_epoch():
    """A new owner counts from zero; its first seconds are no rate of thousands."""
    arrivals = Estimates().arrivals
    for second in range(0, 100, 5):
        arrivals = arrivals.counted(Sample(float(second), 1, second * 2.0 + max(second - 75, 0) * 6.0))
    assert arrivals.rates() == (8.0, pytest.approx(4.0))
    assert arrivals.samples[0].at <= 95 - 60 < arrivals.samples[1].at
    assert arrivals.counted(Sample(100.0, 2, 5000.0)).rates() == (0.0, 0.0)
    soon = arrivals.counted(Sample(100.0, 2, 3.0)).counted(Sample(100.25, 2, 4.0))
    assert soon.rates()[0] <= 0.2


def test_signals_in_quick_succession_are_kept_once_a_second():
    """Four a second for two minutes leave no more than the window needs."""
    arrivals = Estimates().arrivals
    for quarter in range(480):
        arrivals = arrivals.counted(Sample(quarter / 4, 1, float(quarter)))
    assert len(arrivals.samples) <= 90
    assert arrivals.rates() == (pytest.approx(4.0, rel=0.05), pytest.approx(4.0, rel=0.05))


def test_without_a_counter_arrivals_are_what_is_inside_and_what_ended():
    """16 slots of 4 s end 4 tasks a second; inside grows by 2 a second: 6 arrive."""
    arrivals = Estimates().arrivals
    for second in range(0, 65, 5):
        arrivals = arrivals.derived(float(second), 1, inside=16 + 2 * second, busy=16, service_s=4.0)
    assert arrivals.rates() == (pytest.approx(6.0), pytest.approx(6.0))


def test_a_new_owners_guess_of_the_service_time_is_not_believed():
    """Until it saw twenty tasks end."""
    estimates = Estimates().saw_service(4.0, ended=500)
    assert estimates.saw_service(1.0, ended=3).service_s == 4.0
    assert estimates.saw_service(3.5, ended=20).service_s == 3.5
    assert estimates.saw_service(3.0).service_s == 3.0


def test_gaps_are_counted_for_each_pod_by_itself():
    """Need falls from 8 to 5 to 2 and comes back to 6: three pods were away 100 s, one 150 s, two are away still."""
    gaps = Gaps()
    for now, wish in [(0.0, 8), (50.0, 5), (100.0, 2), (200.0, 6)]:
        gaps = saw(gaps, wish, 60.0, now)
    assert gaps.past == (Gap(100.0, 3), Gap(150.0, 1))
    assert [(away.low, away.top) for away in gaps.away] == [(6, 8)]


def test_a_gap_beyond_the_longest_hold_counts_before_need_is_back():
    """Otherwise a pool that fell silent would learn nothing from it."""
    gaps = saw(saw(Gaps(), 4, 60.0, 0.0), 0, 60.0, 10.0)
    assert saw(gaps, 0, 60.0, 10.0 + LONGEST * 60.0).past == ()
    over = saw(gaps, 0, 60.0, 11.0 + LONGEST * 60.0)
    assert over == Gaps(0, (), (Gap(FAR_S, 4),))
    assert saw(over, 4, 60.0, 9999.0).past == over.past


def test_the_hold_covers_gaps_that_end_and_not_those_that_do_not():
    """And lies within the bounds of the spec, whatever was learned."""
    short = Gaps(past=(Gap(200.0, 1),) * 10)
    long = Gaps(past=(Gap(FAR_S, 1),) * 10)
    mixed = Gaps(past=(Gap(200.0, 1),) * 2 + (Gap(FAR_S, 1),) * 20)
    assert best(short, 60.0, 0.0, 1200.0) == 200.0
    assert best(long, 60.0, 0.0, 1200.0) == best(mixed, 60.0, 0.0, 1200.0) == 60.0
    assert best(short, 60.0, 0.0, 190.0) == 60.0, "what cannot be covered is not tried"
    assert best(long, 60.0, 300.0, 1200.0) == 300.0
    assert best(Gaps(past=(Gap(200.0, 1),) * (ENOUGH - 1)), 60.0, 0.0, 1200.0) == 150.0


def test_estimates_survive_a_restart_as_json():
    """All but the arrivals and the gaps that are still open; the memory of gaps stays small."""
    estimates = Estimates().saw_pods([Start("a", 0.0, 40.0)]).saw_service(2.5)
    for cycle in range(100):
        estimates = estimates.wished(5, cycle * 400.0).wished(1, cycle * 400.0 + 200.0)
    read = from_dict(json.loads(json.dumps(to_dict(estimates))))
    assert read.learned(60.0, 1200.0) == estimates.learned(60.0, 1200.0)
    assert (read.cold_start, read.service_s, read.counted) == (estimates.cold_start, 2.5, {"a"})
    assert len(read.gaps.past) == len(estimates.gaps.past) == KEPT


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"coldStart": {"meanSeconds": -4, "deviationSeconds": 1, "pods": 3}},
        {"coldStart": {"meanSeconds": "nan", "deviationSeconds": 1, "pods": 3}},
        {"serviceSeconds": float("inf"), "gaps": [[1, 2, 3]], "countedPods": 5},
        {"gaps": {"a": 1}},
    ],
)
def test_what_makes_no_sense_is_as_if_it_had_not_been_learned(kept):
    """A ConfigMap can be edited."""
    assert from_dict(kept) == Estimates()

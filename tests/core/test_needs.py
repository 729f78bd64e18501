"""What learners cannot do without, and what the round then refuses."""

import numpy as np
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, participation, topologies, transforms


FAMILY = envs.garnet_family("homogeneous", 4, 1, 2, 2)
WORLDS = (FAMILY.features, FAMILY.policy, 0.9)
N = 4


def make(learner, family=FAMILY, aggregator=None, **kwargs):
    return make_round(family, learner, aggregator or aggregators.mean(), num_agents=N, **kwargs)


def scafflsa():
    return learners.scafflsa(*WORLDS, step_size=0.1, num_local_steps=2)


def feddyn():
    return learners.federated_td(*WORLDS, step_size=0.1, corrections=(learners.dynamic_regularization(0.1),))


def pf_lsa():
    return learners.pf_lsa(*WORLDS, step_size=0.1, beta=0.5)


def importance():
    return learners.federated_q(0.9, 0.1, averaging="importance")


def tracking():
    return learners.tracking_npg(0.1, discount=0.9)


RING = topologies.gossip(topologies.ring(N))
CONFLICT = envs.conflict_family(2)
SYSTEM = participation.fixed_system(np.arange(1.0, N + 1))


@pytest.mark.parametrize(
    ("learner", "options", "message"),
    [
        (scafflsa, {"transforms": (transforms.clip(1.0),)}, r"transforms\[0\] must leave messages as they are"),
        (scafflsa, {"transforms": (transforms.quantize(4),)}, r"transforms\[0\] must leave messages as they are"),
        (scafflsa, {"aggregator": aggregators.mean(expected=N)}, r"aggregator must be mean\(\) .* got Mean"),
        (scafflsa, {"aggregator": aggregators.median()}, r"aggregator must be mean\(\) .* got Median"),
        (feddyn, {"transforms": (transforms.clip(1.0),)}, r"transforms\[0\] must leave messages as they are"),
        (pf_lsa, {"topology": RING}, r"topology must be star\(\) or isolated\(\) with PFLSA, got Gossip"),
        (pf_lsa, {"participation": participation.uniform_cohort(2)}, r"participation must be everyone\(\) with PFLSA"),
        (importance, {"topology": RING, "family": CONFLICT}, r"topology must be star\(\) or isolated\(\)"),
        (importance, {"transforms": (transforms.quantize(4),), "family": CONFLICT}, "must leave messages as they are"),
        (tracking, {"transforms": (transforms.erasure(0.1),), "family": CONFLICT}, "must not lose messages"),
        (tracking, {"transforms": (transforms.clip(1.0),), "family": CONFLICT}, "must leave messages as they are"),
        (tracking, {"aggregator": aggregators.median(), "family": CONFLICT}, r"aggregator must be mean\(\)"),
        *(
            (pf_lsa, {"participation": rule}, r"participation must be everyone\(\) with PFLSA")
            for rule in (
                participation.availability(participation.everyone(), 0.5, 0.5),
                participation.opt_out(participation.everyone(), (0,)),
                participation.timed(participation.everyone(), SYSTEM, deadline=2.5),
            )
        ),
        (pf_lsa, {"transforms": (transforms.dropout(0.1),)}, r"transforms\[0\] must not (let agents vanish|lose)"),
    ],
)
def test_what_is_not_granted_is_refused(learner, options, message):
    with pytest.raises(ValueError, match=message):
        make(learner(), **options)


@pytest.mark.parametrize("topology", [RING, topologies.isolated()])
def test_messages_that_do_not_travel_cannot_be_lost(topology):
    learner = learners.federated_td(*WORLDS, step_size=0.1)
    with pytest.raises(ValueError, match=r"transforms\[0\] must not lose messages with (Gossip|Isolated), got Erasure"):
        make(learner, topology=topology, transforms=(transforms.erasure(0.1),))


def test_what_is_granted_is_not():
    make(scafflsa(), transforms=(transforms.erasure(0.1),), topology=topologies.star())
    make(scafflsa(), topology=RING)
    make(tracking(), CONFLICT, topology=RING)
    make(pf_lsa(), participation=participation.timed(participation.everyone(), SYSTEM))
    make(importance(), CONFLICT, transforms=(transforms.erasure(0.1),))
    assert np.isfinite(FAMILY.features).all()

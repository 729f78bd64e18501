"""What a round counts does not depend on how it is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, make_round, run, transforms
from fedjax_rl.core import component
from tests.probes.quadratic import Descent, Targets


TARGETS = np.arange(12.0, dtype=np.float32).reshape(4, 3)


def counts(targets, learner, aggregator, ways=()):
    round_ = make_round(Targets(jnp.asarray(targets)), learner, aggregator, num_agents=4, transforms=ways)
    history = run(round_, round_.init(jax.random.key(0)), 2)[1]
    names = ("uplink_bits", "messages_delivered", "messages_lost", "nonfinite_messages", "agent_updates")
    return {name: history[name].tolist() for name in names}


@pytest.mark.parametrize("ways", [(), (transforms.top_change(100),)])
def test_a_nonfinite_message_is_none_that_was_lost(ways):
    targets = TARGETS.copy()
    targets[2] = np.nan
    streamed, stacked = (counts(targets, Descent(0.5), a(), ways) for a in (aggregators.mean, aggregators.median))
    assert streamed == stacked
    assert streamed["messages_lost"] == [0, 0]
    assert streamed["nonfinite_messages"] == [1, 1]
    assert streamed["messages_delivered"] == [3, 3]


@component
class Speechless(Descent):
    """Has nothing to weigh its message by."""

    def update(self, key, env, physics, download, local, work):
        local, envelope, metrics = super().update(key, env, physics, download, local, work)
        return local, envelope._replace(weight=jnp.float32(0)), metrics


@pytest.mark.parametrize("aggregator", [aggregators.mean(), aggregators.median()])
def test_who_has_nothing_to_send_pays_and_loses_nothing(aggregator):
    found = counts(TARGETS, Speechless(0.5), aggregator)
    assert found["uplink_bits"] == found["messages_lost"] == found["messages_delivered"] == [0, 0]
    assert found["agent_updates"] == [4, 4]

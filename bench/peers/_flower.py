"""Flower's simulation engine: federated REINFORCE on CartPole-v1, each client in NumPy and Gymnasium.

As many clients as cores learn at a time, in processes that stay. Clients take messages: as a `NumPyClient` each takes
twice as long (measured). A model this small is quicker in NumPy than in a framework that dispatches every operation.
"""

import itertools
import os


os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # read at import

import _protocol
import gymnasium
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation


WORK = _protocol.request()


def play(params: list[np.ndarray], rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Plays `num_steps` steps from a reset on, episode after episode.

    Returns:
        the inputs of every layer f32[T, ...] and the gradient of log pi with respect to the logits f32[T, 2]; the
        returns to go f32[T].
    """
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset()
    inputs, scores, ends = [], [], []
    for uniform in rng.random(WORK["num_steps"]):
        layers = [observation]
        for number in range(0, len(params) - 2, 2):
            layers.append(np.tanh(layers[-1] @ params[number] + params[number + 1]))
        logits = layers[-1] @ params[-2] + params[-1]
        chance = 1 / (1 + np.exp(logits[0] - logits[1]))
        action = int(uniform < chance)
        observation, _, terminated, truncated, _ = env.step(action)
        inputs.append(layers)
        scores.append((chance - action, action - chance))
        ends.append(terminated or truncated)
        if ends[-1]:
            observation, _ = env.reset()
    backwards = itertools.accumulate(
        reversed(ends), lambda later, end: 1 + WORK["discount"] * later * (not end), initial=0
    )
    returns = list(backwards)[:0:-1]
    layers = [np.asarray(layer, np.float32) for layer in zip(*inputs, strict=True)]
    return layers, np.asarray(scores, np.float32), np.asarray(returns, np.float32)


def learned(params: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One step along the policy gradient."""
    layers, score, returns = play(params, rng)
    delta = score * (returns / len(returns))[:, None]
    params = list(params)
    for number in reversed(range(len(layers))):
        kernel, bias = params[2 * number : 2 * number + 2]
        step = WORK["learning_rate"]
        params[2 * number : 2 * number + 2] = kernel + step * layers[number].T @ delta, bias + step * delta.sum(0)
        delta = (delta @ kernel.T) * (1 - layers[number] ** 2)
    return params


def first_params() -> list[np.ndarray]:
    """Kernel and bias of every layer."""
    rng = np.random.default_rng(0)
    sizes = itertools.pairwise((4, *WORK["hidden_sizes"], 2))
    return [
        array
        for rows, columns in sizes
        for array in (
            rng.uniform(-(rows**-0.5), rows**-0.5, (rows, columns)).astype(np.float32),
            np.zeros(columns, np.float32),
        )
    ]


client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """What a client does in a round."""
    params = message.content["arrays"].to_numpy_ndarrays()
    content = RecordDict(
        {
            "arrays": ArrayRecord(learned(params, np.random.default_rng())),
            "metrics": MetricRecord({"num-examples": WORK["num_steps"]}),
        }
    )
    return Message(content, reply_to=message)


@server.main()
def serve(grid: Grid, context: Context) -> None:
    """A call is `rounds_per_call` rounds of all clients."""
    arrays, everybody = ArrayRecord(first_params()), WORK["num_agents"]
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_train_nodes=everybody,
        min_available_nodes=everybody,
        train_metrics_aggr_fn=lambda replies, _: MetricRecord({"clients": len(replies)}),
    )

    def call() -> None:
        nonlocal arrays
        result = strategy.start(grid, arrays, num_rounds=WORK["rounds_per_call"])
        replies = [metrics["clients"] for metrics in result.train_metrics_clientapp.values()]
        if replies != [everybody] * WORK["rounds_per_call"]:  # a round goes on without those that fail, and quicker
            raise RuntimeError(f"{everybody} clients should have learnt in every round, got replies of {replies}")
        arrays = result.arrays

    updates = WORK["num_agents"] * WORK["rounds_per_call"]
    packages = ("flwr", "ray", "gymnasium", "numpy")
    _protocol.serve(call, packages, env_steps=updates * WORK["num_steps"], agent_updates=updates)


if __name__ == "__main__":
    resources = {"client_resources": {"num_cpus": 1}}
    run_simulation(server, client, num_supernodes=WORK["num_agents"], backend_config=resources)

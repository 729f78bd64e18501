"""Federated actor-critic on CartPole-v1 in PyTorch and Gymnasium, as tutorials write it: client after client.

A client plays its episodes one after the other, one step at a time, normalises the returns over all of them, and takes
one step of its own Adam, whose moments it keeps. The server averages the models, weighted by the samples.
"""

import itertools

import _protocol
import gymnasium
import torch
from torch import nn
from torch.distributions import Categorical


DISCOUNT, LEARNING_RATE, VALUE_COST, ENTROPY_COST = 0.99, 1e-3, 0.5, 0.01


class ActorCritic(nn.Module):
    """A trunk with two heads."""

    def __init__(self, hidden_sizes: list[int]) -> None:
        super().__init__()
        pairs = itertools.pairwise((4, *hidden_sizes))
        self.trunk = nn.Sequential(*(layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())))
        self.actor = nn.Linear(hidden_sizes[-1], 2)
        self.critic = nn.Linear(hidden_sizes[-1], 1)

    def forward(self, observation: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        hidden = self.trunk(observation)
        return Categorical(logits=self.actor(hidden)), self.critic(hidden).squeeze(-1)


class Client:
    """An environment, a model and an optimiser."""

    def __init__(self, hidden_sizes: list[int], num_steps: int) -> None:
        self.env = gymnasium.make("CartPole-v1", max_episode_steps=num_steps)
        self.model = ActorCritic(hidden_sizes)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)

    def update(self, params: dict[str, torch.Tensor], num_episodes: int) -> int:
        """Learns from new episodes, beginning with `params`; returns the number of samples."""
        self.model.load_state_dict(params)
        observations, actions, returns = [], [], []
        for _ in range(num_episodes):
            rewards = []
            observation, _ = self.env.reset()
            ended = False
            while not ended:
                seen = torch.from_numpy(observation)
                with torch.no_grad():
                    action = self.model(seen)[0].sample()
                observation, reward, terminated, truncated, _ = self.env.step(action.item())
                observations.append(seen)
                actions.append(action)
                rewards.append(reward)
                ended = terminated or truncated
            backwards = itertools.accumulate(reversed(rewards), lambda later, reward: reward + DISCOUNT * later)
            returns += reversed(list(backwards))
        target = torch.tensor(returns, dtype=torch.float32)
        target = (target - target.mean()) / (target.std() + 1e-8)
        distribution, value = self.model(torch.stack(observations))
        log_prob = distribution.log_prob(torch.stack(actions))
        policy_loss = -(log_prob * (target - value.detach())).mean()
        critic_loss = nn.functional.mse_loss(value, target)
        loss = policy_loss + VALUE_COST * critic_loss - ENTROPY_COST * distribution.entropy().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return len(returns)


def average(models: list[dict[str, torch.Tensor]], samples: list[int]) -> dict[str, torch.Tensor]:
    """The mean of the models, weighted by their samples."""
    total = sum(samples)
    return {
        name: sum(model[name] * (count / total) for model, count in zip(models, samples, strict=True))
        for name in models[0]
    }


def main() -> None:
    """A call is a training of `rounds_per_call` rounds, from new models on."""
    work = _protocol.request()

    def train(num_agents: int, num_rounds: int) -> None:
        clients = [Client(work["hidden_sizes"], work["num_steps"]) for _ in range(num_agents)]
        params = {name: x.clone() for name, x in clients[0].model.state_dict().items()}
        for _ in range(num_rounds):
            samples = [client.update(params, work["num_envs"]) for client in clients]
            params = average([client.model.state_dict() for client in clients], samples)

    threads = _protocol.fastest(torch.set_num_threads, _protocol.thread_counts(), lambda: train(1, 5))
    _protocol.serve(
        lambda: train(work["num_agents"], work["rounds_per_call"]),
        ("torch", "gymnasium", "numpy"),
        agent_updates=work["num_agents"] * work["rounds_per_call"],
        threads=threads,
    )


if __name__ == "__main__":
    main()

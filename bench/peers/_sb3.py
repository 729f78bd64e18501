"""stable-baselines3: PPO of one agent on CartPole-v1."""

import _protocol
import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv


def main() -> None:
    """A call is `rounds_per_call` iterations: play `num_steps` steps of `num_envs` environments, learn from them."""
    work = _protocol.request()
    samples = work["num_envs"] * work["num_steps"]
    model = PPO(
        "MlpPolicy",  # separate actor and critic, tanh
        DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * work["num_envs"]),
        n_steps=work["num_steps"],
        batch_size=samples // work["num_minibatches"],
        n_epochs=work["num_epochs"],
        learning_rate=work["learning_rate"],
        gamma=work["discount"],
        gae_lambda=work["gae_lambda"],
        clip_range=work["clip"],
        max_grad_norm=work["max_norm"],
        policy_kwargs={"net_arch": list(work["hidden_sizes"])},
        device="cpu",
    )

    def learn(iterations: int) -> None:
        model.learn(iterations * samples, reset_num_timesteps=False, log_interval=None)

    threads = _protocol.fastest(torch.set_num_threads, _protocol.thread_counts(), lambda: learn(1))
    _protocol.serve(
        lambda: learn(work["rounds_per_call"]),
        ("stable-baselines3", "torch", "gymnasium", "numpy"),
        env_steps=work["rounds_per_call"] * samples,
        threads=threads,
    )


if __name__ == "__main__":
    main()

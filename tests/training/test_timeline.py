"""The picture of who worked when."""

import numpy as np
import pytest

from fedjax_rl.cli import main
from fedjax_rl.participation import Timeline
from fedjax_rl.training import ExperimentConfig, draw_timeline, plot_timeline


CONFIG = ExperimentConfig().replace(
    num_agents=3,
    num_rounds=4,
    policy={"hidden_sizes": (4,)},
    rollout={"num_envs": 1, "num_steps": 5},
    learner={"objective": "actor_critic()"},
    evaluation={"unseen_agents": 0, "episodes": 1, "final_episodes": 1},
)
CLOCK = "first_arrivals(ratio_system(ratio=4.0), batch=2)"


def test_a_run_is_drawn_without_training(tmp_path):
    config = CONFIG.replace(round={"participation": CLOCK})
    picture = plot_timeline(config, tmp_path / "clock.png")
    assert picture.stat().st_size > 5000


def test_what_depends_on_reports_cannot_be_drawn_again(tmp_path):
    config = CONFIG.replace(round={"participation": "power_of_choice(1, 2)"})
    with pytest.raises(ValueError, match="cohorts must be given with PowerOfChoice"):
        plot_timeline(config, tmp_path / "choice.png")


def test_of_many_agents_the_first_are_shown(tmp_path):
    number = np.arange(60)
    jobs = Timeline(number, number * 1.0, number + 1.0, number // 2, number % 7 == 0, np.arange(30.0))
    assert draw_timeline(jobs, tmp_path / "many.svg").read_text().count("<svg") == 1


def test_the_command_draws_into_the_folder(tmp_path, capsys):
    arguments = ["--agents", "3", "--num-rounds", "2", "--policy.hidden-sizes", "4", "--rollout.num-envs", "1"]
    arguments += ["--rollout.num-steps", "8", "--round.participation", CLOCK, "--evaluation.episodes", "1"]
    out = str(tmp_path / "run")
    assert main(["train", *arguments, "--out", out]) == 0
    assert main(["plot", out, "--timeline"]) == 0
    assert (tmp_path / "run" / "timeline.png").exists()
    assert "timeline.png" in capsys.readouterr().out
    assert main(["plot", out, out, "--timeline", "--out", str(tmp_path / "x.png")]) == 2

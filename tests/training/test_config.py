"""The configuration: it reads back equal, and whatever is wrong with it is said with the place and the remedy."""

import dataclasses

import pytest

from fedjax_rl.training import ExperimentConfig, preset, preset_names


ODD = ExperimentConfig(
    name='with "quotes" and \\ and\nlines',
    seed=7,
    num_agents="auto",
    chunk_size="none",
    devices=2,
).replace(
    policy={"hidden_sizes": (32, 16, 8), "shared_trunk": False, "initial_log_std": -0.1},
    learner={"corrections": ("proximal(0.1)",), "server_optimizer": "yogi(0.01)", "optimizer": "sgd(1e-3)"},
    round={"transforms": ("clip(1.0)", "from_optax(clip_by_global_norm(2.0))"), "topology": "isolated"},
    evaluation={"success": (), "greedy": True},
    checkpoint={"every_seconds": 1 / 3},
)


@pytest.mark.parametrize("config", [ExperimentConfig(), ODD], ids=["defaults", "odd"])
def test_toml_reads_back_equal(config: ExperimentConfig) -> None:
    text = config.to_toml("a comment\nof two lines")
    assert ExperimentConfig.from_toml(text) == config
    assert ExperimentConfig.from_toml(text).to_toml("a comment\nof two lines") == text
    assert text.startswith("# a comment\n# of two lines\n")


def test_absent_keys_keep_their_defaults() -> None:
    config = ExperimentConfig.from_toml("num_agents = 3\n[learner]\nnum_epochs = 2\n")
    assert config == ExperimentConfig(num_agents=3).replace(learner={"num_epochs": 2})


def test_integers_pass_as_numbers_and_lists_as_tuples() -> None:
    config = ExperimentConfig.from_toml("[evaluation]\nsuccess = [1, 2.5]\n[checkpoint]\nevery_seconds = 5")
    assert config.evaluation.success == (1.0, 2.5)
    assert isinstance(config.checkpoint.every_seconds, float)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("num_agent = 3", ["f.toml, line 1", "num_agent is not a known key", "did you mean num_agents?"]),
        ("[learner]\n\nnum_epoch = 3", ["line 3", "learner.num_epoch", "did you mean num_epochs?"]),
        ("[lerner]\nx = 3", ["line 1", "lerner", "did you mean learner?"]),
        ("seed = 'x'", ["line 1", "seed must be an integer", "'x' (str)"]),
        ("seed = true", ["seed must be an integer", "True (bool)"]),
        ("seed = 1.5", ["seed must be an integer", "1.5 (float)"]),
        ("seed = -1", ["line 1: seed must be at least 0, got -1"]),
        ("seed = 2147483647", ["seed must be below"]),
        ("num_agents = 'all'", ["num_agents must be an integer or 'auto'", "'all' (str)"]),
        ("[policy]\nhidden_sizes = 64", ["policy.hidden_sizes must be a list, each entry an integer", "64 (int)"]),
        ("[policy]\nhidden_sizes = [64, 'a']", ["line 2", "policy.hidden_sizes[1] must be an integer"]),
        ("[policy]\nhidden_sizes = [64, 0]", ["policy.hidden_sizes must be positive"]),
        ("[policy]\nshared_trunk = 1", ["policy.shared_trunk must be true or false"]),
        ("[learner]\nupload = 'deltas'", ["line 2", "learner.upload must be 'delta' or 'gradient'"]),
        ("[learner]\nnum_epochs = 0", ["line 2: learner.num_epochs must be at least 1, got 0"]),
        ("[checkpoint]\nevery_seconds = nan", ["checkpoint.every_seconds must be at least 0"]),
        ("[checkpoint]\nevery_seconds = inf", ["checkpoint.every_seconds must be at least 0"]),
        ("learner = 3", ["line 1: learner must be a table [learner]"]),
        ("[round]\naggregator = 'mean('", ["line 2: round.aggregator is wrong", "never closed"]),
        ("[round]\ntransforms = ['clip(1)', 'exec']\nx = 1", ["line 3: round.x is not a known key"]),
        ("num_agents = ", ["f.toml: not valid TOML"]),
    ],
)
def test_an_error_names_file_line_key_and_remedy(text: str, parts: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        ExperimentConfig.from_toml(text, "f.toml")
    for part in parts:
        assert part in str(error.value)


def test_files(tmp_path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(ODD.to_toml(), encoding="utf-8")
    assert ExperimentConfig.load(path) == ODD
    with pytest.raises(FileNotFoundError, match=r"no configuration file .*missing\.toml"):
        ExperimentConfig.load(tmp_path / "missing.toml")
    with pytest.raises(ValueError, match="cannot read the configuration"):
        ExperimentConfig.load(tmp_path)


def test_replace_checks_names_and_values() -> None:
    config = ExperimentConfig().replace(num_rounds=5, learner={"num_epochs": 3})
    assert (config.num_rounds, config.learner.num_epochs) == (5, 3)
    assert config.learner.optimizer == ExperimentConfig().learner.optimizer
    assert ODD.replace(learner={"server_optimizer": None}).learner.server_optimizer is None
    with pytest.raises(ValueError, match="did you mean num_rounds"):
        config.replace(num_round=5)
    with pytest.raises(ValueError, match=r"learner\.num_epochs must be at least 1"):
        config.replace(learner={"num_epochs": 0})


def test_differences_name_the_fields() -> None:
    other = ExperimentConfig().replace(seed=3, learner={"server_optimizer": "sgd(1.0)"})
    assert ExperimentConfig().differences(other) == {"seed": (0, 3), "learner.server_optimizer": (None, "sgd(1.0)")}
    assert other.differences(other) == {}


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_complete(name: str) -> None:
    config = preset(name)
    assert config.name == name
    assert 20 < len(config.description) < 100
    assert ExperimentConfig.from_toml(config.to_toml()) == config


def test_an_unknown_preset_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"did you mean tutorial.*presets: cartpole, talk, tutorial, tutorial-exact"):
        preset("tutorials")


def test_every_field_is_documented() -> None:
    """The help of the command shows the text below each field."""
    import ast
    import inspect

    from fedjax_rl.training import _config

    for section in ast.parse(inspect.getsource(_config)).body:
        if not (isinstance(section, ast.ClassDef) and section.name.endswith("Config")):
            continue
        fields = [i for i, node in enumerate(section.body) if isinstance(node, ast.AnnAssign)]
        undocumented = [
            ast.unparse(section.body[i].target)  # pyright: ignore[reportAttributeAccessIssue]
            for i in fields
            if not (isinstance(after := section.body[i + 1], ast.Expr) and isinstance(after.value, ast.Constant))
        ]
        sections = {field.name for field in dataclasses.fields(ExperimentConfig)}
        assert set(undocumented) <= sections

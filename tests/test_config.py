"""Profiles: the bundled ones load; every mistake is named with its cure."""

import copy
import re

import pytest
import yaml

from srgan_lib.config import PROFILES, load_profile, workspace
from srgan_lib.errors import UserError

NAMES = sorted(path.stem for path in PROFILES.glob("*.yaml"))
SMOKE = yaml.safe_load((PROFILES / "smoke.yaml").read_text())
RUN = {"network": "srresnet", "epochs": 2}
GONE = object()


@pytest.fixture
def changed(tmp_path):
    """changed("srgan.beta", 1): the path of smoke with one value changed."""

    def change(place, value):
        values = copy.deepcopy(SMOKE)
        *tables, key = place.split(".")
        table = values
        for name in tables:
            table = table[name]
        if value is GONE:
            del table[key]
        else:
            table[key] = value
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return change


def refusal(path):
    """The message of the UserError: one sentence, on one line."""
    with pytest.raises(UserError) as caught:
        load_profile(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_the_five_profiles_are_there():
    assert NAMES == ["course", "paper", "quick", "reference", "smoke"]


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_profile_loads(name):
    config = load_profile(name)
    assert config.name == name
    assert config.G.n_blocks >= 1 and config.srgan.betas[0] == 0.9
    for run in config.runs.values():
        assert {"network", "epochs", "start", "snapshot_of"} == set(run)


@pytest.mark.parametrize("name", ["course", "quick", "smoke"])
def test_the_five_runs_of_the_case(name):
    runs = load_profile(name).runs
    assert set(runs) == {
        *("SRResNet-10", "SRResNet-20", "SRGAN-10"),
        *("SRResNet-10+SRGAN-20", "SRResNet-20+SRGAN-20"),
    }
    assert runs["SRResNet-10"].snapshot_of == "SRResNet-20"
    assert runs["SRGAN-10"].start is None
    assert runs["SRResNet-10+SRGAN-20"].start == "SRResNet-10"


def test_course_and_paper_are_the_case_as_written():
    for name in ("course", "paper"):
        config = load_profile(name)
        assert dict(config.G) == {
            "large_kernel_size": 9,
            "small_kernel_size": 3,
            "n_channels": 64,
            "n_blocks": 16,
        }
        assert (config.D.n_channels, config.D.n_blocks) == (64, 8)
        assert config.srgan.beta == 1e-3 and config.srgan.grid_weight == 0
        assert config.srgan.mesh_weight == config.srgan.tint_weight == 0
        assert config.srgan.chroma_weight == 0
        for stage in (config.srresnet, config.srgan):
            assert (stage.batch_size, stage.crop_size) == (16, 96)
            assert (stage.learning_rate, stage.pixel_loss) == (1e-4, "mse")
            assert stage.ema_decay is None and stage.clip_norm is None
    assert load_profile("course").srgan.schedule == "half"


def test_a_profile_from_a_path_is_named_after_its_file(changed):
    config = load_profile(changed("seed", 7))
    assert (config.name, config.seed) == ("mine", 7)
    assert load_profile(str(changed("seed", 8))).seed == 8


def test_the_mesh_term_needs_eight_cells(tmp_path):
    values = SMOKE | {"scaling_factor": 8, "faults": None}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    assert "srgan: crop_size must be 64 or more" in refusal(path)


def test_faults_are_for_a_factor_of_four(changed):
    assert "a scaling_factor of 4, not 2" in refusal(
        changed("scaling_factor", 2)
    )


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("faults.srgan", "SRResNet-20", "is not an srgan run"),
        ("faults.srresnet", "SRResNet-10", "srresnet run that the profile"),
        ("faults.srresnet", "SRResNet-30", "srresnet is 'SRResNet-30'"),
        ("faults.srresnet_epochs", 21, "SRResNet-20 has 4; take no more"),
        ("srgan.schedule", "cosine", "srgan needs the schedule constant"),
    ],
)
def test_faults_are_beginnings_of_runs(changed, place, value, words):
    assert words in refusal(changed(place, value))


def test_an_unknown_profile_lists_those_there_are():
    assert all(name in refusal("quik") for name in ("'quik'", *NAMES))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("colour", ["profile mine", "'colour'", "seed, scaling_factor"]),
        ("G.depth", ["mine: G", "'depth'", "n_channels, n_blocks"]),
        ("srgan.betta", ["mine: srgan", "'betta'", "beta, d_pace"]),
        ("runs.SRGAN-10.epoch", ["run SRGAN-10", "'epoch'", "epochs"]),
    ],
)
def test_an_unknown_key_is_named_beside_the_good_ones(changed, place, words):
    message = refusal(changed(place, 1))
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("seed", "profile mine lacks"),
        ("D.fc_size", "mine: D lacks"),
        ("srresnet.schedule", "mine: srresnet lacks"),
        ("runs.SRGAN-10.epochs", "run SRGAN-10 lacks"),
    ],
)
def test_a_missing_key_is_named(changed, place, where):
    message = refusal(changed(place, GONE))
    assert where in message and f"'{place.split('.')[-1]}'" in message


@pytest.mark.parametrize(
    ("place", "value", "wanted"),
    [
        ("runs.SRGAN-10.epochs", -1, "epochs must be a whole number, 1 or"),
        ("runs.SRGAN-10.epochs", 0, "epochs must be a whole number, 1 or"),
        ("runs.SRGAN-10.epochs", 1.5, "a whole number, 1 or more, not 1.5"),
        ("runs.SRGAN-10.network", "gan", "one of srresnet, srgan"),
        ("seed", True, "seed must be a whole number, 0 or more, not true"),
        ("seed", "x", "a whole number, 0 or more, not .x."),
        ("scaling_factor", 3, "scaling_factor must be one of 2, 4, 8, not 3"),
        ("scaling_factor", 4.0, "one of 2, 4, 8, not 4.0"),
        ("steps_per_epoch", 0, "a whole number, 1 or more, or null, not 0"),
        ("augment", 1, "augment must be true or false, not 1"),
        ("train_sets", "DIV2K", "a list of set names, not .DIV2K."),
        ("train_sets", [], "a list of set names"),
        ("val_sets", [1], "a list of set names"),
        ("G", 5, "mine: G must be a table"),
        ("G.small_kernel_size", 4, "one of 3, 5, 7, not 4"),
        ("srgan.vgg19_i", True, "vgg19_i must be one of 1, 2, 3, 4, 5"),
        ("srresnet.schedule", "linear", "one of constant, half, one_cycle"),
        ("srresnet.schedule", ["half"], "one of constant, half, one_cycle"),
        ("srresnet.learning_rate", 0, "a number above 0, not 0"),
        ("srresnet.learning_rate", float("nan"), "a number above 0, not NaN"),
        ("srresnet.learning_rate", None, "a number above 0, not null"),
        ("srresnet.learning_rate", "1e-4", r"as text \(write 1\.0e-4\)"),
        ("srgan.ema_decay", 1, "above 0 and below 1, or null, not 1"),
        ("srgan.betas", [0.9], "betas must be two numbers"),
        ("srgan.betas", [0.9, 1], "two numbers from 0 to below 1"),
        ("srgan.betas", ["a", "b"], "two numbers from 0 to below 1"),
        ("srgan.content_weight", "auto", "a number above 0, or calibrated"),
        ("srgan.content_weight", -1, "a number above 0, or calibrated"),
        ("srgan.pixel_loss", "l2", "pixel_loss must be one of mse, l1"),
        (
            "srgan.features",
            "resnet",
            "one of efficientnet-lite0, vgg16-hed, vgg19",
        ),
        ("srgan.crop_size", 50, "crop_size must be a multiple of"),
        ("srgan.crop_size", 28, "crop_size must be 32 or more"),
        ("runs", {}, "runs must be a table of runs"),
        ("runs", {"A": 5}, "run A must be a table of keys and values"),
        ("runs", {"../A": RUN}, "a run cannot be called '../A'"),
        ("runs", {20: RUN}, "a run cannot be called '20'"),
    ],
)
def test_a_bad_value_is_named_beside_the_good_ones(
    changed, place, value, wanted
):
    assert re.search(wanted, refusal(changed(place, value)))


def test_a_date_is_refused_like_any_other_value(tmp_path):
    text = yaml.safe_dump(SMOKE, sort_keys=False)
    text = text.replace("seed: 0", "seed: 2020-01-01")
    (tmp_path / "mine.yaml").write_text(text)
    assert "not " in refusal(tmp_path / "mine.yaml")


def test_vgg19_has_two_convolutions_before_its_first_pools(changed):
    assert "VGG19" in refusal(changed("srgan.vgg19_i", 2))  # j is 4
    assert load_profile(changed("srgan.vgg19_i", 3)).srgan.vgg19_i == 3


GAN = {"network": "srgan", "epochs": 2}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({"B": GAN | {"start": "A"}}, "B builds on 'A', which is not"),
        ({"B": GAN | {"start": "A"}, "A": RUN}, "B builds on 'A', which is"),
        ({"A": GAN, "B": GAN | {"start": "A"}}, "not an srresnet run above"),
        ({"A": RUN | {"snapshot_of": "A"}}, "A builds on 'A', which is not"),
        (
            {"A": RUN, "B": RUN | {"epochs": 3, "snapshot_of": "A"}},
            "B is a snapshot after epoch 3 of a run of 2 epochs",
        ),
        (
            {"A": RUN, "B": GAN | {"snapshot_of": "A"}},
            "B must be an srresnet run without start",
        ),
        (
            {
                "A": RUN,
                "B": RUN | {"snapshot_of": "A"},
                "C": RUN | {"snapshot_of": "B"},
            },
            "C must be .* of a run that is none itself",
        ),
        ({"A": RUN | {"start": 5}}, "start must be the name of a run"),
        ({"bicubic": RUN}, "cannot be called 'bicubic', for other figures"),
    ],
)
def test_runs_that_cannot_follow_each_other(changed, runs, message):
    assert re.search(message, refusal(changed("runs", runs)))


def test_the_name_of_a_bundled_profile_is_taken(changed, tmp_path):
    path = changed("seed", 7).rename(tmp_path / "quick.yaml")
    assert "has the name of one of the library's profiles" in refusal(path)


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "- 1\n\tx", "\x00"])
def test_bad_yaml_is_named(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert "mine.yaml is not valid YAML" in refusal(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"seed: \xff\xfe")
    assert "not valid YAML" in refusal(path)
    for text in ("", "- 1", "5"):
        path.write_text(text)
        assert "profile mine must be a table" in refusal(path)
    assert "There is no profile" in refusal(tmp_path)


def test_the_workspace_is_the_book_around_us_else_here(tmp_path, monkeypatch):
    chapter = tmp_path / "project" / "book"
    chapter.mkdir(parents=True)
    monkeypatch.chdir(chapter)
    assert workspace() == chapter
    (tmp_path / "project" / "_toc.yml").touch()
    assert workspace() == tmp_path / "project"

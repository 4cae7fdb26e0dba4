"""The run store: nothing stale is shown, nothing is done twice."""

import hashlib
import importlib.util
import json
import os
import shutil
import signal

import numpy as np
import pytest
from easydict import EasyDict
from tiny import Features, tiny_config, write_pictures

from srgan_lib import (
    data_lists,
    evaluation,
    experiments,
    inference,
    losses,
    training,
)
from srgan_lib.checkpoints import load_checkpoint, save_weights
from srgan_lib.data_lists import SETS, ImageSet
from srgan_lib.errors import UserError
from srgan_lib.experiments import (
    code_digest,
    current_profile,
    make_plan,
    measure_runs,
    needed_runs,
    pairs_digest,
    perform,
    run_experiments,
    run_keys,
    set_aside,
    shipped_results,
    training_pairs,
)
from srgan_lib.images import read_image
from srgan_lib.models import Generator

pytestmark = pytest.mark.usefixtures("one_thread")
LONG, SHORT, GAN = "SRResNet-2", "SRResNet-1", "SRResNet-1+SRGAN-1"


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A profile of three tiny runs on sets of two tiny pictures each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRGAN_DATA", str(tmp_path / "root"))
    monkeypatch.setattr(training, "load_features", lambda stage: Features())
    monkeypatch.setattr(losses, "EfficientNetFeatures", Features)
    monkeypatch.setattr(inference, "WEIGHTS", tmp_path / "weights")
    for seed, name in enumerate(("TinyTrain", "TinyTest", "OtherTest")):
        folder = tmp_path / name
        write_pictures(folder, seed=10 * seed)
        monkeypatch.setitem(SETS, name, ImageSet("test", 2, (folder,)))
    monkeypatch.setattr(experiments, "PICTURE_SETS", ("TinyTest",))
    config = tiny_config(
        **{
            LONG: {"network": "srresnet"},
            SHORT: {"network": "srresnet", "epochs": 1, "snapshot_of": LONG},
            GAN: {"network": "srgan", "epochs": 1, "start": SHORT},
        }
    )
    config.train_sets, config.val_sets = ["TinyTrain"], ["TinyTest"]
    config.test_sets = ["TinyTest", "OtherTest", "Set5"]  # no Set5 there
    return config


@pytest.fixture
def done(monkeypatch):
    """What was trained and measured since `done.clear()`."""
    done = []
    train, measure = training.train, evaluation.evaluate

    def watched_train(config, name, *arguments, **options):
        done.append(name)
        return train(config, name, *arguments, **options)

    def watched_evaluate(enlarge, pairs, *arguments):
        done.append(pairs[0][0].parent.name)
        return measure(enlarge, pairs, *arguments)

    monkeypatch.setattr(training, "train", watched_train)
    monkeypatch.setattr(evaluation, "evaluate", watched_evaluate)
    return done


def plan(config):
    return {t.name: t for t in make_plan(config, training_pairs(config))}


def states(config):
    return [task.state for task in plan(config).values()]


def rewrite(folder, seed):
    """Other pictures, under the same names."""
    write_pictures(folder, seed=seed)


# --- a whole profile -----------------------------------------------------


def test_a_profile_from_nothing_and_again(config, done, tmp_path):
    assert states(config) == ["train", "snapshot", "train"]
    assert "has not been trained" in plan(config)[LONG].why
    assert [t.steps for t in plan(config).values()] == [6, 0, 3]
    results = run_experiments(config)
    assert done == [LONG, GAN, *["TinyTest", "OtherTest"] * 4]
    assert list(results) == ["bicubic", LONG, SHORT, GAN]
    assert states(config) == ["finished"] * 3
    done.clear()
    again = run_experiments(config)
    assert done == []
    assert again == results
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"smoke"}


def test_what_the_store_holds(config):
    results = run_experiments(config)
    for name, result in results.items():
        assert list(result.metrics) == ["TinyTest", "OtherTest"]
        for figures in result.metrics.values():
            assert set(figures.mean) == set(evaluation.METRICS)
            assert set(figures.images) == {"0", "1"}
        sr = result.picture("TinyTest", "0")
        assert sr.shape == (48, 40, 3)
        assert not (result.folder / "sr" / "OtherTest").exists()
        if name != "bicubic":
            assert result.config.state == "finished"
            assert result.config.run == name
            loaded = experiments.inference.upscale(
                result.generator(), read_image(training_pairs(config)[0][1])
            )
            assert loaded.shape == (48, 40, 3)
    assert len(results[LONG].validation) == 2
    assert results[GAN].config.features == "one layer"


def test_a_snapshot_tells_of_its_own_epochs_only(config):
    results = run_experiments(config)
    short, long = results[SHORT], results[LONG]
    assert short.config.steps == 3 and long.config.steps == 6
    assert short.config.seconds < long.config.seconds
    assert short.validation == long.validation[:1]
    assert short.history == [r for r in long.history if r["step"] <= 3]
    kept = long.folder / "weights-1.safetensors"
    weights = short.folder / "weights.safetensors"
    assert weights.read_bytes() == kept.read_bytes()
    assert short.metrics.TinyTest.mean != long.metrics.TinyTest.mean


def test_runs_are_chained_to_what_they_begin_from(config):
    assert needed_runs(config, GAN) == [LONG, SHORT, GAN]
    assert needed_runs(config, LONG) == [LONG]


# --- keys ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda c: c.update(seed=1), [LONG, SHORT, GAN]),
        (lambda c: c.G.update(n_blocks=2), [LONG, SHORT, GAN]),
        (lambda c: c.srresnet.update(pixel_loss="mse"), [LONG, SHORT, GAN]),
        (lambda c: c.runs[LONG].update(epochs=3), [LONG, SHORT, GAN]),
        (lambda c: c.D.update(fc_size=5), [GAN]),
        (lambda c: c.srgan.update(beta=0.1), [GAN]),
        (lambda c: c.runs[GAN].update(start=LONG), [GAN]),
        (lambda c: c.update(checkpoint_minutes=9), []),
        (lambda c: c.update(test_sets=[]), []),
        (lambda c: c.update(cache_gigabytes=0), []),
    ],
)
def test_a_change_of_settings_renews_what_depends_on_it(config, change, again):
    pairs = training_pairs(config)
    before = run_keys(config, pairs)
    assert len(set(before.values())) == 3
    change(config)
    after = run_keys(config, pairs)
    assert [name for name in before if before[name] != after[name]] == again


def test_changed_bytes_of_an_image_renew_its_runs(config, tmp_path):
    before = run_keys(config, training_pairs(config))
    hr = tmp_path / "TinyTrain" / "1.png"
    hr.write_bytes(hr.read_bytes())  # the same bytes, at another time
    assert run_keys(config, training_pairs(config)) == before
    rewrite(tmp_path / "TinyTrain", seed=5)
    after = run_keys(config, training_pairs(config))
    assert not set(before.values()) & set(after.values())


def test_paths_do_not_matter_and_order_does(config, tmp_path):
    pairs = training_pairs(config)
    moved = []
    for k, pair in enumerate(pairs):
        moved.append(tuple(tmp_path / f"moved{k}{p.name}" for p in pair))
        for old, new in zip(pair, moved[-1], strict=True):
            shutil.copy(old, new)
    assert pairs_digest(moved) == pairs_digest(pairs)
    assert pairs_digest(moved[::-1]) != pairs_digest(pairs)
    assert pairs_digest([p[::-1] for p in pairs]) != pairs_digest(pairs)


CODE = '''"""What it is for."""

WIDTH = 3  # pixels


class Thing:
    """A thing."""

    def double(self, x):
        """Twice x."""
        return 2 * x
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("What it is for.", "Something else.", True),
        ("  # pixels", "", True),
        ("Twice x.", "x and x again.", True),
        ('        """Twice x."""\n', "", True),
        ("\n\n\nclass", "\n\n# A comment.\nclass", True),
        ("return 2 * x", "return (2 * x)", True),
        ("2 * x", "3 * x", False),
        ("WIDTH = 3", "WIDTH = 4", False),
        ("double", "twice", False),
        ("return 2 * x", 'return "2 * x"', False),
    ],
)
def test_only_code_that_does_something_else_counts(tmp_path, old, new, same):
    def digest_of(text, name):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return code_digest((module,))

    assert CODE.count(old) == 1
    before, after = (
        digest_of(CODE, "a"),
        digest_of(CODE.replace(old, new), "b"),
    )
    assert (before == after) == same


def test_the_code_that_trains_is_part_of_the_key(config, monkeypatch):
    pairs = training_pairs(config)
    before = run_keys(config, pairs)
    monkeypatch.setattr(
        experiments, "TRAINING_CODE", experiments.TRAINING_CODE[:-1]
    )
    assert not set(before.values()) & set(run_keys(config, pairs).values())


# --- what is done again --------------------------------------------------


def test_a_change_of_srgan_trains_srgan_alone(config, done):
    run_experiments(config)
    done.clear()
    config.srgan.beta = 0.1
    assert states(config) == ["finished", "finished", "train"]
    assert "changed" in plan(config)[GAN].why
    run_experiments(config)
    assert done == [GAN, "TinyTest", "OtherTest"]


def test_a_plan_says_why(config, tmp_path, monkeypatch):
    run_experiments(config)
    config.srresnet.pixel_loss, config.D.fc_size = "mse", 5
    found = {name: task.why for name, task in plan(config).items()}
    assert found == {
        LONG: "its settings changed (srresnet)",
        SHORT: f"it is {LONG} after epoch 1",
        GAN: "its settings changed (D)",
    }
    config.srresnet.pixel_loss, config.D.fc_size = "l1", 4
    config.G.n_channels, config.seed = 8, 2
    assert plan(config)[GAN].why == "its settings changed (seed, G)"
    config.G.n_channels, config.seed = 4, 0
    assert states(config) == ["finished"] * 3
    config.srresnet.learning_rate = 1e-5
    assert plan(config)[GAN].why == f"{SHORT}, which it begins from, changed"
    config.srresnet.learning_rate = 1e-3
    folder = plan(config)[GAN].folder
    config.runs["new"] = config.runs.pop(GAN)
    shutil.copytree(folder, folder.with_name("new"))  # renamed in both places
    assert plan(config)["new"].why == "it is up to date"
    config.D.fc_size = 5
    assert plan(config)["new"].why == "it has not been trained"
    config.runs[GAN], config.D.fc_size = config.runs.pop("new"), 4
    rewrite(tmp_path / "TinyTrain", seed=5)
    assert plan(config)[LONG].why.startswith("its training images, or the c")


def test_a_run_killed_at_once_says_so(config, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Run, "epoch_figures", killed)
        run_experiments(config)
    task = plan(config)[LONG]
    assert (task.state, task.steps, task.total) == ("train", 6, 6)
    assert task.why == "it was begun, but nothing was saved yet"


def test_what_no_longer_fits_is_set_aside_and_comes_back(
    config, done, tmp_path
):
    first = run_experiments(config)
    weights = (first[GAN].folder / "weights.safetensors").read_bytes()
    config.srgan.beta = 0.1
    second = run_experiments(config)
    assert second[GAN].metrics != first[GAN].metrics
    stale = second[GAN].folder.with_name(f"{GAN}.stale")
    assert (stale / "weights.safetensors").read_bytes() == weights
    done.clear()
    config.srgan.beta = 5.0e-3
    assert run_experiments(config) == first
    assert done == []
    assert (first[GAN].folder / "weights.safetensors").read_bytes() == weights
    config.srgan.beta = 0.1  # and the other one, too
    assert run_experiments(config) == second
    assert done == []


def test_a_run_cut_short_at_once_does_not_cost_the_one_before(config):
    first = run_experiments(config)[LONG].folder
    weights = (first / "weights.safetensors").read_bytes()
    stale = first.with_name(f"{LONG}.stale")
    begun = (first / "config.json").read_text()
    for seed in (1, 2):  # changed twice; nothing is saved in between
        config.seed = seed
        set_aside(plan(config)[LONG])
        first.mkdir()
        (first / "config.json").write_text(begun)
    assert (stale / "weights.safetensors").read_bytes() == weights


def test_two_trainings_of_one_run_are_kept_apart(config):
    pairs = training_pairs(config)
    task = plan(config)[LONG]
    with (
        experiments.alone_in(task.folder),
        pytest.raises(UserError, match="being trained by another process"),
    ):
        perform(task, config, pairs, [])
    perform(task, config, pairs, [])
    assert plan(config)[LONG].state == "finished"


def test_stale_pictures_do_not_survive_a_renewal(config):
    first = run_experiments(config)
    before = first[GAN].picture("TinyTest", "0")
    config.srgan.update(learning_rate=0.05, warmup_steps=0)
    second = run_experiments(config)
    assert not np.array_equal(second[GAN].picture("TinyTest", "0"), before)


def interrupted_at(monkeypatch, step):
    """Send SIGINT during `step` of the next SRResNet run."""
    epoch = training.srresnet_epoch

    def hooked(accelerator, state, *arguments):
        for figures in epoch(accelerator, state, *arguments):
            if state.step == step:
                os.kill(os.getpid(), signal.SIGINT)
            yield figures

    monkeypatch.setattr(training, "srresnet_epoch", hooked)


def test_an_interrupted_profile_goes_on(config, monkeypatch, done):
    pairs = training_pairs(config)
    with monkeypatch.context() as patch:
        interrupted_at(patch, 4)
        with pytest.raises(training.Interrupted):
            run_experiments(config)
    task = plan(config)[LONG]
    assert (task.state, task.steps) == ("resume", 2)
    assert task.why == "4 of its 6 steps are done"
    assert states(config) == ["resume", "snapshot", "train"]
    assert load_checkpoint(task.folder / "checkpoint.pt")["step"] == 4
    run_experiments(config)
    assert done[:3] == [LONG, LONG, GAN]
    assert run_keys(config, pairs) == {
        name: task.key for name, task in plan(config).items()
    }
    assert states(config) == ["finished"] * 3


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(
    config, monkeypatch
):
    with monkeypatch.context() as patch:
        interrupted_at(patch, 4)
        with pytest.raises(training.Interrupted):
            run_experiments(config)
    config.srresnet.learning_rate = 1e-5
    assert states(config)[0] == "train"
    run_experiments(config)
    history = training.read_lines(plan(config)[LONG].folder / "history.jsonl")
    assert [r["step"] for r in history] == [2, 4, 6]
    assert all(r["learning_rate"] <= 1e-5 for r in history)


@pytest.mark.parametrize("lost", ["weights.safetensors", "config.json"])
def test_a_run_with_a_part_missing_is_made_whole(config, done, lost):
    first = run_experiments(config)
    path = first[LONG].folder / lost
    before = path.read_bytes()
    path.unlink()
    assert states(config)[0] != "finished"
    run_experiments(config)
    assert states(config) == ["finished"] * 3
    if lost == "weights.safetensors":
        assert path.read_bytes() == before


def test_a_damaged_config_is_not_trusted(config):
    folder = run_experiments(config)[GAN].folder
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text[: len(text) // 2])
    assert states(config) == ["finished", "finished", "train"]


def test_a_snapshot_that_was_not_kept_says_what_to_do(config):
    run_experiments(config)
    config.runs["SRResNet-1b"] = dict(config.runs[SHORT])
    task = {t.name: t for t in plan(config).values()}["SRResNet-1b"]
    assert task.why == f"it is {LONG} after epoch 1"
    source = plan(config)[LONG].folder
    (source / "weights-1.safetensors").unlink()
    with pytest.raises(
        UserError, match=rf"kept no weights .* delete {source}"
    ):
        perform(task, config, training_pairs(config), [])
    assert not task.folder.exists()


# --- measuring -----------------------------------------------------------


def test_a_changed_test_set_is_measured_again_alone(config, done, tmp_path):
    first = run_experiments(config)
    done.clear()
    rewrite(tmp_path / "OtherTest", seed=77)
    second = run_experiments(config)
    assert done == ["OtherTest"] * 4
    for name in first:
        old, new = first[name].metrics, second[name].metrics
        assert old.TinyTest == new.TinyTest
        assert old.OtherTest.mean != new.OtherTest.mean


def test_a_set_that_is_gone_is_no_longer_shown(config, done, tmp_path):
    run_experiments(config)
    done.clear()
    shutil.rmtree(tmp_path / "OtherTest")
    results = run_experiments(config)
    assert done == []
    assert all(list(r.metrics) == ["TinyTest"] for r in results.values())
    write_pictures(tmp_path / "OtherTest", seed=20)
    results = run_experiments(config)
    assert done == []  # it is back, and need not be measured again
    assert all(len(r.metrics) == 2 for r in results.values())


@pytest.mark.parametrize("content", ["", '{"TinyTest": {"key"', "{}"])
def test_damaged_metrics_are_made_again(config, done, content):
    first = run_experiments(config)
    done.clear()
    (first[GAN].folder / "metrics.json").write_text(content)
    again = run_experiments(config)
    assert done == ["TinyTest", "OtherTest"]
    assert again[GAN].metrics.TinyTest.mean == first[GAN].metrics.TinyTest.mean


def test_code_that_measures_is_part_of_the_key(config, done, monkeypatch):
    run_experiments(config)
    done.clear()
    monkeypatch.setattr(
        experiments, "MEASURING_CODE", experiments.MEASURING_CODE[1:]
    )
    measure_runs(config, list(plan(config).values()))
    assert done == ["TinyTest", "OtherTest"] * 4


def put_weights(config, name, **changes):
    """Weights that come with the library, and the record beside them."""
    architecture = {"scaling_factor": config.scaling_factor, "G": config.G}
    architecture |= changes
    path = inference.WEIGHTS / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    kind = EasyDict(architecture)
    save_weights(path, Generator(kind), architecture=json.dumps(architecture))
    record = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    record |= {"architecture": architecture, "steps": 40}
    path.with_suffix(".json").write_text(json.dumps(record))


def test_shipped_weights_are_measured_with_the_runs(config, done):
    run_experiments(config)
    assert shipped_results(config) == {}
    put_weights(config, "ours")
    put_weights(config, "of another scale", scaling_factor=2)
    done.clear()
    results = run_experiments(config)
    assert done == ["TinyTest", "OtherTest"]
    assert "ours" not in results
    (ours,) = shipped_results(config).values()
    assert (ours.name, ours.config.steps) == ("ours", 40)
    assert list(ours.metrics) == ["TinyTest", "OtherTest"]
    image = next(iter(ours.metrics.TinyTest.images))
    assert ours.picture("TinyTest", image).dtype == np.uint8
    run_experiments(config)
    assert done == ["TinyTest", "OtherTest"]
    put_weights(config, "ours")  # other numbers under the same name
    run_experiments(config)
    assert done == ["TinyTest", "OtherTest"] * 2


def test_bicubic_is_matlabs(config):
    metrics = run_experiments(config)["bicubic"].metrics
    hr, lr = data_lists.data_list("TinyTest")[0]
    sr = experiments.imresize.imresize(read_image(lr), 4)
    expected = evaluation.measure(sr, read_image(hr), Features())
    assert dict(metrics.TinyTest.images["0"]) == expected


# --- what is missing -----------------------------------------------------


def test_missing_training_sets_say_how_to_get_them(config):
    config.train_sets = ["DIV2K", "BSDS"]
    with pytest.raises(UserError) as caught:
        run_experiments(config)
    message = str(caught.value)
    for part in ("smoke", "`srgan data DIV2K`", "BSR_bsds500.tgz"):
        assert part in message
    assert "\n" not in message


def test_of_several_training_sets_those_that_are_there_are_taken(config):
    alone = training_pairs(config)
    config.train_sets = ["DIV2K", "TinyTrain"]
    assert training_pairs(config) == alone
    config.train_sets = ["TinyTrain", "OtherTest"]
    assert training_pairs(config)[:2] == alone
    assert len(training_pairs(config)) == 4


def test_an_unknown_set_is_refused(config):
    config.train_sets = ["Photoz"]
    with pytest.raises(UserError, match="no image set 'Photoz'"):
        run_experiments(config)


def test_the_profile_of_the_environment(monkeypatch):
    for value, name in (("smoke", "smoke"), ("", "quick")):
        monkeypatch.setenv("SRGAN_PROFILE", value)
        assert current_profile().name == name
    monkeypatch.delenv("SRGAN_PROFILE")
    assert current_profile().name == "quick"


def test_json_that_is_not_there_holds_nothing(tmp_path):
    assert experiments.read_json(tmp_path / "x.json") == {}
    (tmp_path / "x.json").write_text(json.dumps({"a": 1})[:-1])
    assert experiments.read_json(tmp_path / "x.json") == {}


def test_a_result_without_a_folder_is_empty(tmp_path):
    result = experiments.read_result(tmp_path / "none")
    assert result.history == [] and result.metrics == {}

"""The rating study: what raters see, and statistics with known answers."""

import json
import math
import re
import shutil

import numpy as np
import pytest
from test_cli import one_line, srgan  # noqa: F401
from tiny import smooth_image

from srgan_lib import opinion
from srgan_lib.errors import UserError
from srgan_lib.images import write_image

NAN = math.nan


def pictures(methods=("alpha", "beta", "gamma"), images=("one", "two", "six")):
    """Small pictures, each version of an image another."""
    return {
        image: {
            method: smooth_image(16, 16, 10 * i + m)
            for m, method in enumerate([*methods, "hr"])
        }
        for i, image in enumerate(images)
    }


@pytest.fixture(params=["mos", "pairs"])
def study(request):
    return opinion.make_study(pictures(), request.param)


# Better methods get better scores; nearest and hr are told apart.
SCORES = {"nearest": 1, "alpha": 2, "beta": 3, "gamma": 4, "hr": 5}


def careful(key, rater="r1", scores=SCORES, skip=()):
    """The record of a rater to whom methods are as good as SCORES says."""
    answers = {}
    for trial, shown in key["trials"].items():
        score = {p: scores[key["pictures"][p][1]] for p in shown}
        best = max(shown, key=score.get)
        answers[trial] = score[best] if key["mode"] == "mos" else best
    for trial in list(answers)[: len(skip) or 0]:
        del answers[trial]
    return opinion.make_record(key, rater, answers)


def write(path, record):
    path.write_text(json.dumps(record))
    return path


# --- what a rater may see ------------------------------------------------


def test_the_page_holds_no_name_and_no_order(study):
    page, key = study
    text = opinion.page(page)
    for name in ("alpha", "beta", "gamma", "one", "two", "six", "nearest"):
        assert not re.search(
            rf"\b{name}\b", json.dumps(page | {"pictures": ""})
        )
        assert f'"{name}"' not in text
    # The places in the file are no more telling than the names.
    methods = [method for _, method in key["pictures"].values()]
    assert methods != sorted(methods) and methods[:5] != key["methods"]
    assert len({len(p) for p in [*key["pictures"], *key["trials"]]}) == 1


def test_equal_seeds_make_equal_studies_and_others_other_ids():
    first, again, other = (
        opinion.make_study(pictures(), seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first[0]["id"] != other[0]["id"]
    assert not first[0]["pictures"].keys() & other[0]["pictures"].keys()


def test_each_rater_has_an_order_of_their_own(study):
    _, key = study
    orders = [tuple(opinion.trial_order(key, f"r{k}")) for k in range(5)]
    assert len({*orders}) == 5
    assert all(sorted(order) == sorted(key["trials"]) for order in orders)


def test_one_file_without_a_network(study):
    page, _ = study
    text = opinion.page(page)
    assert not re.search(r"(src|href)\s*=\s*[\"']?http|@import|fetch\(", text)
    assert "{{" not in text


def test_a_title_cannot_become_markup():
    evil = "</script><script>alert(1)</script><!--"
    page, _ = opinion.make_study(pictures(), title=evil, note=evil)
    text = opinion.page(page)
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert "alert" not in text.replace("\\u003cscript>alert(1)", "")
    held = text.partition('id="study">')[2].partition("</script>")[0]
    assert json.loads(held)["title"] == evil


def test_every_method_is_asked_about():
    page, key = opinion.make_study(pictures())
    asked = [tuple(key["pictures"][p]) for (p,) in key["trials"].values()]
    assert sorted(asked) == sorted(
        (i, m) for i in ("one", "two", "six") for m in SCORES
    )
    page, key = opinion.make_study(pictures(), "pairs")
    named = {p: tuple(name) for p, name in key["pictures"].items()}
    asked = [{named[p] for p in shown} for shown in key["trials"].values()]
    for image in ("one", "two", "six"):
        for pair in (("alpha", "beta"), ("alpha", "gamma"), ("beta", "gamma")):
            assert asked.count({(image, m) for m in pair}) == 1
        assert asked.count({(image, "nearest"), (image, "hr")}) == 1
    assert len(asked) == 12
    for trial, original in page["originals"].items():
        image = named[key["trials"][trial][0]][0]
        assert named[original] == (image, "hr")


def test_the_bad_anchor_is_nearest_neighbor():
    hr = smooth_image(20, 24)[:18, :22]
    coarse = opinion.coarse(hr)
    assert coarse.shape == hr.shape
    assert (coarse[0:4, 0:4] == coarse[0, 0]).all()
    assert (coarse[16:, 20:] == coarse[16, 20]).all()


# --- reading pictures ----------------------------------------------------


def write_results(folder, shape=(16, 16), hr=(18, 17)):
    for k, method in enumerate(("alpha", "beta")):
        for image in ("one", "two"):
            write_image(
                folder / method / f"{image}.png",
                np.full((*shape, 3), k, np.uint8),
            )
    for image in ("one", "two"):
        original = np.full((*hr, 3), 9, np.uint8)
        original[16:], original[:, 16:] = 99, 99
        write_image(folder / "hr" / f"{image}.png", original)


def test_pictures_of_a_folder(tmp_path):
    write_results(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "alpha" / ".hidden.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    found = opinion.read_pictures(tmp_path)
    assert list(found) == ["one", "two"]
    assert list(found["one"]) == ["alpha", "beta", "hr"]
    # What the scale left over of the original is cut off.
    assert {p.shape for p in found["one"].values()} == {(16, 16, 3)}
    assert [found["two"][m].max() for m in ("alpha", "beta", "hr")] == [
        0,
        1,
        9,
    ]


def test_pictures_of_a_folder_of_runs(tmp_path, monkeypatch):
    write_results(tmp_path / "plain")
    for method in ("alpha", "beta"):
        place = tmp_path / "runs" / method / "sr"
        place.mkdir(parents=True)
        (tmp_path / "plain" / method).rename(place / "Tiny")
    stale = tmp_path / "runs/alpha.stale/sr/Tiny"
    shutil.copytree(tmp_path / "runs/alpha/sr/Tiny", stale)
    originals = sorted((tmp_path / "plain/hr").iterdir())
    monkeypatch.setattr(
        opinion, "data_list", lambda name: [(p, None) for p in originals]
    )
    found = opinion.read_pictures(tmp_path / "runs", "Tiny")
    assert list(found["one"]) == ["alpha", "beta", "hr"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: (p / "hr").rename(p / "originals"), "called hr"),
        (lambda p: (p / "beta/two.png").unlink(), "beta and the originals"),
        (
            lambda p: write_image(
                p / "beta/two.png", np.zeros((8, 8, 3), np.uint8)
            ),
            "two of beta has 8 x 8 pixels",
        ),
        (
            lambda p: shutil.copy(p / "beta/two.png", p / "beta/two.jpg"),
            r"two\.jpg and .*two\.png are the same image twice",
        ),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path, spoil, words):
    write_results(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=words):
        opinion.read_pictures(tmp_path)


def test_a_central_crop():
    image = np.arange(5 * 9).reshape(5, 9)
    assert opinion.middle(image, 3).tolist() == image[1:4, 3:6].tolist()
    assert opinion.middle(image, 20).shape == (5, 9)


# --- reading answers -----------------------------------------------------


def test_a_healthy_file_is_read(study, tmp_path):
    _, key = study
    record = careful(key)
    found, left_out = opinion.read_answers(
        key, [write(tmp_path / "a.json", record)]
    )
    assert found == [record] and not left_out


def swap_answers(record):
    first, last = record["answers"][0], record["answers"][-1]
    first[1], last[1] = last[1], first[1]


def signed(change):
    """Change a record and sign it again, as a forger can."""

    def spoil(record):
        change(record)
        record["digest"] = opinion.digest(record)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda r: r["answers"][0].__setitem__(1, 3.5), "edited"),
        (lambda r: r["answers"][0].__setitem__(2, 5), "edited"),
        (swap_answers, "edited"),
        (lambda r: r.update(rater="r2"), "edited"),
        (lambda r: r["answers"].pop(), "edited"),
        (lambda r: r.update(complete=False), "edited"),
        (lambda r: r.pop("digest"), "edited"),
        (lambda r: r.update(study="0" * 16), "another study"),
        (lambda r: r.update(format="holiday photos"), "no answers"),
        (signed(lambda r: r["answers"].reverse()), "cannot have saved"),
        (signed(lambda r: r["answers"].pop()), "cannot have saved"),
        (
            signed(lambda r: r["answers"][0].__setitem__(1, 6)),
            "cannot have saved",
        ),
        (signed(lambda r: r.update(rater=None)), "cannot have saved"),
        (signed(lambda r: r.update(answers=7)), "cannot have saved"),
        (signed(lambda r: r.update(complete=False)), "cannot have saved"),
    ],
)
def test_a_changed_file_is_named_and_left_out(study, tmp_path, spoil, why):
    _, key = study
    # Scores that differ, so that swapping them is a change.
    record = careful(key)
    while record["answers"][0][1] == record["answers"][-1][1]:
        record = careful(key, rater=record["rater"] + "x")
    good = write(tmp_path / "good.json", careful(key, "good"))
    spoil(record)
    bad = write(tmp_path / "bad.json", record)
    found, left_out = opinion.read_answers(key, [bad, good])
    assert [r["rater"] for r in found] == ["good"]
    assert [path for path, _ in left_out] == [str(bad)]
    assert why in left_out[0][1]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cut short"),
        (b"\xff\xfe", "cut short"),
        (b"[" * 100_000, "cut short"),
        (b"[]", "no answers"),
        (b'"text"', "no answers"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_answer_file_is_named(study, tmp_path, content, why):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    found, left_out = opinion.read_answers(study[1], [path])
    assert not found and why in left_out[0][1]


def test_a_truncated_file_is_named_wherever_it_ends(study, tmp_path):
    _, key = study
    text = json.dumps(careful(key))
    for length in range(1, len(text) - 1, 97):
        (tmp_path / "a.json").write_text(text[:length])
        found, left_out = opinion.read_answers(key, [tmp_path / "a.json"])
        assert not found and "cut short" in left_out[0][1]


def test_another_layout_of_the_same_answers_is_no_edit(study, tmp_path):
    _, key = study
    path = tmp_path / "a.json"
    path.write_text(json.dumps(careful(key), indent=4))
    assert opinion.read_answers(key, [path])[0]


def test_incomplete_answers_count_when_asked_for(study, tmp_path):
    _, key = study
    path = write(tmp_path / "a.json", careful(key, skip="xx"))
    found, left_out = opinion.read_answers(key, [path])
    total = len(key["trials"])
    assert not found and f"({total - 2} of {total} answers)" in left_out[0][1]
    found, left_out = opinion.read_answers(key, [path], incomplete=True)
    assert opinion.count(found[0]) == total - 2 and not left_out


def test_of_one_rater_the_fullest_file_counts(study, tmp_path):
    _, key = study
    paths = [
        write(tmp_path / "a.json", careful(key, skip="xx")),
        write(tmp_path / "b.json", careful(key)),
        write(tmp_path / "c.json", careful(key)),
    ]
    found, left_out = opinion.read_answers(key, paths, incomplete=True)
    assert found == [careful(key)]
    assert [path for path, _ in left_out] == [str(paths[2]), str(paths[0])]
    assert all("duplicate" in why for _, why in left_out)


def test_the_same_answers_at_another_pace_do_not_contradict(study, tmp_path):
    _, key = study
    slower = careful(key)
    slower["answers"][0][2] += 500
    slower["digest"] = opinion.digest(slower)
    paths = [
        write(tmp_path / "a.json", careful(key)),
        write(tmp_path / "b.json", slower),
    ]
    found, left_out = opinion.read_answers(key, paths)
    assert len(found) == 1 and "duplicate" in left_out[0][1]


def test_contradicting_files_of_one_rater_are_all_left_out(study, tmp_path):
    _, key = study
    other = SCORES | {"alpha": 4, "gamma": 2}
    paths = [
        write(tmp_path / "a.json", careful(key)),
        write(tmp_path / "b.json", careful(key, scores=other)),
    ]
    found, left_out = opinion.read_answers(key, paths)
    assert not found and {path for path, _ in left_out} == {*map(str, paths)}


# --- statistics with known answers ---------------------------------------

# Krippendorff's own example: four observers, twelve units, values 1 to 5.
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


@pytest.mark.parametrize(
    ("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815)]
)
def test_alpha_of_krippendorffs_example(level, alpha):
    values = KRIPPENDORFF.reshape(4, 3, 4)
    assert round(opinion.agreement(values, level), 3) == alpha


@pytest.mark.parametrize(
    "values",
    [
        [[[1.0, 2.0, 3.0]]],  # one rater
        [[[2.0, 2.0]], [[2.0, 2.0]]],  # one value
        [[[1.0, NAN]], [[NAN, 2.0]]],  # nothing rated twice
    ],
)
def test_alpha_without_a_meaning(values):
    assert opinion.agreement(np.array(values), "ordinal") is None


def test_bradley_terry_of_baseball():
    """American League, East, 1987: Agresti, Categorical Data Analysis."""
    wins = np.array(
        [
            [0, 7, 9, 7, 7, 9, 11],  # Milwaukee
            [6, 0, 7, 5, 11, 9, 9],  # Detroit
            [4, 6, 0, 7, 7, 8, 12],  # Toronto
            [6, 8, 6, 0, 6, 7, 10],  # New York
            [6, 2, 6, 7, 0, 7, 12],  # Boston
            [4, 4, 5, 6, 6, 0, 6],  # Cleveland
            [2, 4, 1, 3, 1, 7, 0],  # Baltimore
        ]
    )
    scores = opinion.bradley_terry(wins, prior=0)
    published = [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0]
    assert (scores - scores[-1]).round(2).tolist() == published
    assert abs(scores.mean()) < 1e-9


def test_bradley_terry_of_two_is_the_log_of_the_odds():
    wins = np.array([[0, 30], [10, 0]])
    score, _ = opinion.bradley_terry(wins, prior=0)
    assert score == pytest.approx(math.log(3) / 2)
    score, _ = opinion.bradley_terry(wins)
    assert score == pytest.approx(math.log(30.5 / 10.5) / 2)


def test_bradley_terry_of_one_who_never_lost_is_finite():
    wins = np.array([[0, 5, 5], [0, 0, 3], [0, 2, 0]])
    scores = opinion.bradley_terry(wins)
    assert np.isfinite(scores).all() and scores.argmax() == 0


def test_bradley_terry_takes_two_who_never_met_for_equals():
    wins = np.array([[0, 9, 0], [1, 0, 0], [0, 0, 0]])
    assert opinion.bradley_terry(wins)[2] == pytest.approx(0)


def test_holm_by_hand():
    # In order: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, not below 0.06.
    found = opinion.holm([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_flip_test_of_darwins_maize():
    """Fisher 1935: 1,726 of the 32,768 ways are as extreme or more."""
    differences = np.array(
        [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0]
    )
    p = opinion.flip_test(differences, np.zeros(15))
    assert p == pytest.approx(1726 / 32768, abs=0.008)


def test_flip_test_of_five_is_exact():
    x, y = np.array([1.0, 2, 3, 4, 5, NAN]), np.zeros(6)
    assert opinion.flip_test(x, y) == pytest.approx(2 / 2**5)
    assert opinion.flip_test(x[:1], y[:1]) == 1


def test_resampled_means_of_constants_are_that_constant():
    values = np.broadcast_to([2.0, 5.0], (4, 3, 2)).copy()
    values[0, 0, 0] = NAN
    draws = opinion.resampled_means(values)
    # Where only what is missing was drawn, there is no mean.
    assert np.isnan(draws).any() and np.nanmax(abs(draws - [2, 5])) == 0
    assert opinion.interval(draws[:, 1]) == {"low": 5, "high": 5}


def test_resampled_means_vary_over_raters_and_over_images():
    """For rater + image, the variance is the sum of both, over the number."""
    rng = np.random.default_rng(5)
    raters, images = rng.normal(0, 1, 12), rng.normal(0, 2, 8)
    values = (raters[:, None] + images)[..., None]
    spread = opinion.resampled_means(values, draws=20_000).var()
    expected = raters.var() / 12 + images.var() / 8
    assert spread == pytest.approx(expected, rel=0.03)
    assert opinion.resampled_means(values).mean() == pytest.approx(
        values.mean(), abs=0.1
    )


def test_interval_holds_95_percent():
    found = opinion.interval(np.arange(1001.0))
    assert found == {"low": 25, "high": 975}
    assert opinion.interval(np.array([NAN])) == {"low": None, "high": None}


# --- the whole analysis --------------------------------------------------


def test_mean_scores_by_hand(tmp_path):
    _, key = opinion.make_study(pictures())
    higher = SCORES | {"alpha": 4, "beta": 3}
    paths = [
        write(tmp_path / "a.json", careful(key, "a")),
        write(tmp_path / "b.json", careful(key, "b", higher)),
    ]
    result = opinion.analyze(key, paths)
    methods = result["methods"]
    assert methods["alpha"]["score"] == 3  # 2 and 4
    assert methods["alpha"]["scores"] == [0, 3, 0, 3, 0]
    assert methods["alpha"]["low"] == 2 and methods["alpha"]["high"] == 4
    assert methods["gamma"]["score"] == methods["gamma"]["low"] == 4
    test = next(
        t for t in result["tests"] if (t["a"], t["b"]) == ("alpha", "gamma")
    )
    assert test["difference"] == -1
    # Two raters, two signs: p is 2 / 4 at least, times three tests.
    assert test["p_raters"] == 1
    # The anchors are no methods, and would raise alpha.
    assert len(result["tests"]) == 3
    assert result["alpha"] == opinion.agreement(
        np.array([[2.0, 3, 4] * 3, [4.0, 3, 4] * 3]), "ordinal"
    )


def test_pairs_by_hand(tmp_path):
    _, key = opinion.make_study(pictures(), "pairs")
    paths = [
        write(tmp_path / f"{k}.json", careful(key, f"r{k}")) for k in range(3)
    ]
    result = opinion.analyze(key, paths)
    methods = result["methods"]
    assert list(methods) == ["alpha", "beta", "gamma"]
    assert [m["preferred"] for m in methods.values()] == [0, 0.5, 1]
    assert methods["beta"]["score"] == pytest.approx(0, abs=1e-6)
    top, bottom = methods["gamma"]["score"], methods["alpha"]["score"]
    assert top == pytest.approx(-bottom) and top > 1
    assert [t["difference"] for t in result["tests"]] == [-1, -1, -1]
    # Three raters of one mind: p is 2 / 2^3, three times that by Holm.
    assert [t["p_raters"] for t in result["tests"]] == [0.75] * 3
    assert result["alpha"] == 1


def test_agreement_on_pairs_does_not_depend_on_the_order_of_methods(tmp_path):
    alphas = []
    for names in (("alpha", "beta", "gamma"), ("gamma", "alpha", "beta")):
        _, key = opinion.make_study(pictures(names), "pairs")
        records = [
            careful(key, "a"),
            careful(key, "b"),
            careful(key, "c", SCORES | {"alpha": 3, "beta": 2}),
        ]
        paths = [
            write(tmp_path / f"{k}.json", record)
            for k, record in enumerate(records)
        ]
        alphas.append(opinion.analyze(key, paths)["alpha"])
    assert alphas[0] == pytest.approx(alphas[1]) and 0.4 < alphas[0] < 0.8


def test_raters_who_do_not_tell_the_anchors_apart_are_set_aside(
    study, tmp_path
):
    _, key = study
    blind = SCORES | {"nearest": 5, "hr": 1}
    paths = [
        write(tmp_path / "a.json", careful(key, "a")),
        write(tmp_path / "b.json", careful(key, "b", blind)),
    ]
    result = opinion.analyze(key, paths)
    assert [r["counted"] for r in result["raters"]] == [True, False]
    assert [r["told_apart"] for r in result["raters"]] == [3, 0]
    alone = opinion.analyze(key, paths[:1])
    assert result["methods"] == alone["methods"]
    with pytest.raises(UserError, match="b did not tell anchors apart"):
        opinion.analyze(key, paths[1:])


@pytest.mark.parametrize(("right", "counted"), [(2, False), (3, True)])
def test_three_quarters_of_the_anchors_must_be_told_apart(
    tmp_path, right, counted
):
    names = ("one", "two", "six", "ten")
    _, key = opinion.make_study(pictures(images=names))
    answers = {}
    for trial, (picture,) in key["trials"].items():
        image, method = key["pictures"][picture]
        equal = names.index(image) >= right
        answers[trial] = 3 if equal else SCORES[method]
    record = opinion.make_record(key, "a", answers)
    paths = [
        write(tmp_path / "a.json", record),
        write(tmp_path / "b.json", careful(key, "b")),
    ]
    first, _ = opinion.analyze(key, paths)["raters"]
    assert (first["told_apart"], first["of"]) == (right, 4)
    assert first["counted"] == counted


def test_missing_answers_are_missing_and_not_zero(tmp_path):
    _, key = opinion.make_study(pictures())
    record = careful(key)
    answers = {t: a for t, a, _ in record["answers"]}
    gone = [
        t
        for t, (p,) in key["trials"].items()
        if key["pictures"][p][1] == "alpha"
    ]
    for trial in gone:
        del answers[trial]
    paths = [
        write(tmp_path / "a.json", opinion.make_record(key, "a", answers))
    ]
    result = opinion.analyze(key, paths, incomplete=True)
    assert result["methods"]["alpha"]["score"] is None
    assert result["methods"]["beta"]["score"] == 3
    json.dumps(result, allow_nan=False)
    opinion.draw(result)
    assert "alpha" in opinion.report(result)


def test_two_methods_that_are_one_do_not_differ(tmp_path):
    """The same scores for both, with noise: no small p, zero within."""
    _, key = opinion.make_study(pictures(images=[f"i{k}" for k in range(9)]))
    rng = np.random.default_rng(2)
    paths = []
    for rater in range(12):
        answers = {}
        for trial, (picture,) in key["trials"].items():
            method = key["pictures"][picture][1]
            fixed = {"nearest": 1, "hr": 5, "gamma": int(rng.integers(4, 6))}
            answers[trial] = fixed.get(method, int(rng.integers(2, 5)))
        record = opinion.make_record(key, f"r{rater}", answers)
        paths.append(write(tmp_path / f"{rater}.json", record))
    tests = opinion.analyze(key, paths)["tests"]
    same = next(t for t in tests if (t["a"], t["b"]) == ("alpha", "beta"))
    assert same["low"] < 0 < same["high"]
    assert min(same["p_raters"], same["p_images"]) > 0.05
    for test in tests:
        if test["b"] == "gamma":
            assert test["high"] < 0
            assert max(test["p_raters"], test["p_images"]) < 0.05


# --- the command line ----------------------------------------------------


@pytest.fixture
def sheet(tmp_path, srgan):  # noqa: F811
    """The paths of a sheet and of its key, made by the command."""
    write_results(tmp_path / "results")
    code, _, error = srgan(
        *("opinion", "sheet", tmp_path / "results"),
        *("-o", tmp_path / "sheet.html", "--zoom", 2),
    )
    assert code == 0, error
    return tmp_path / "sheet.html", tmp_path / "sheet.key.json"


def test_a_study_from_the_shell(sheet, srgan, tmp_path):  # noqa: F811
    page, key_path = sheet
    key = opinion.read_key(key_path)
    assert key["study"] in page.read_text()
    assert len(key["trials"]) == 8
    good = write(tmp_path / "good.json", careful(key))
    bad = write(tmp_path / "bad.json", careful(key, "r2") | {"rater": "r3"})
    code, out, _ = srgan(
        *("opinion", "analyze", good, bad, "--key", key_path),
        *("-o", tmp_path / "out"),
    )
    assert code == 0
    assert f"{bad} was edited after it was saved: left out" in out
    assert re.search(r"^alpha +2\.00 +2\.00 +2\.00 +0, 2, 0, 0, 0$", out, re.M)
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["methods"]["beta"]["score"] == 3
    assert (tmp_path / "out/result.png").stat().st_size > 1000
    assert re.search(r"^alpha minus beta +-1\.00 ", out, re.M)


def test_mistakes_are_told_in_one_line(sheet, srgan, tmp_path):  # noqa: F811
    page, key = sheet
    out = ("-o", tmp_path / "out")
    for arguments, words in (
        (("sheet", tmp_path / "results", "-o", page), "--force"),
        (("sheet", tmp_path / "nothing", *out), "is no folder"),
        (("sheet", tmp_path, "--set", "Set6", *out), "no image set 'Set6'"),
        (("analyze", page, "--key", page, *out), "cannot be read as a key"),
        (("analyse", key, "--key", key, *out), "holds no answers"),
    ):
        code, _, error = srgan("opinion", *arguments)
        assert code == 1 and one_line(error) and words in error
    write_image(tmp_path / "two/a/1.png", np.zeros((16, 16, 3), np.uint8))
    write_image(tmp_path / "two/hr/1.png", np.zeros((16, 16, 3), np.uint8))
    code, _, error = srgan(
        "opinion", "sheet", tmp_path / "two", "--pairs", *out
    )
    assert code == 1 and "two methods" in error

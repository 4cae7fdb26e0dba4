"""The human evaluation: a blind rating page, and what its answers say.

Scores from 1 to 5 as in Ledig et al. (2017), or pairs. The page that raters
see is opinion.html; which picture is whose stands in a key of its own.
"""

import base64
import hashlib
import html
import json
import random
import re
from itertools import combinations
from pathlib import Path

import krippendorff
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from scipy.stats import permutation_test
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM
from statsmodels.stats.multitest import multipletests

from srgan_lib.data_lists import PHOTOS, SUFFIXES, data_list
from srgan_lib.errors import UserError
from srgan_lib.figures import COLORS, cut, data_uri
from srgan_lib.files import atomic_write, write_json, write_text
from srgan_lib.images import read_image
from srgan_lib.imresize import imresize

PAGE = Path(__file__).with_name("opinion.html")
KEY, ANSWERS = "srgan opinion key 1", "srgan opinion answers 1"
# The anchors: every rater should find the second better than the first.
NEAREST, HR = ANCHORS = "nearest", "hr"
# Photographs that no study rates: what is a 1, and what is a 5?
EXAMPLES = (
    ("dogs.webp", (290, 285, 96, 96)),
    ("bird.webp", (440, 620, 96, 96)),
)
TOLD_APART = 0.75  # share of images in which a careful rater does so
DRAWS = 2000  # of the bootstrap


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


# --- the study -----------------------------------------------------------


def coarse(hr):
    """hr shrunk to a quarter and enlarged again by nearest neighbor."""
    height, width = hr.shape[:2]
    lr = imresize(hr, 1 / 4)
    return imresize(lr, 4, kernel="nearest")[:height, :width]


def examples():
    """[(a bad picture, an excellent one), ...]: calibrate the raters."""
    crops = [cut(read_image(PHOTOS / name), box) for name, box in EXAMPLES]
    return [(data_uri(coarse(hr)), data_uri(hr)) for hr in crops]


def read_pictures(folder, test_set=None):
    """{image: {method: uint8 (H, W, 3)}} from folder/METHOD/IMAGE.png.

    The originals lie in folder/hr. With a test set the folder is one of
    runs: pictures lie in METHOD/sr/SET, and the originals are the set's.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one with results.")
    files = {
        place.name: image_files(place / "sr" / test_set if test_set else place)
        for place in sorted(folder.iterdir())
        if place.is_dir() and place.suffix != ".stale"
    }
    files = {method: found for method, found in files.items() if found}
    if test_set:
        files[HR] = {path.stem: path for path, _ in data_list(test_set)}
    if HR not in files or not files.keys() - {*ANCHORS}:
        raise UserError(
            f"{folder} must have a folder of pictures for each method, and "
            "one of the originals, called hr."
        )
    for method, found in files.items():
        if differ := sorted(found.keys() ^ files[HR].keys()):
            raise UserError(
                f"{method} and the originals are not the same images "
                f"({', '.join(differ[:3])}); give both the same file names."
            )
    return {
        image: same_size(
            {method: read_image(files[method][image]) for method in files},
            image,
        )
        for image in sorted(files[HR])
    }


def image_files(folder):
    """{stem: path} of the pictures in a folder; none if it is not there."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() not in SUFFIXES or path.name[0] == ".":
            continue
        first = found.setdefault(path.stem, path)
        if first is not path:
            raise UserError(
                f"{first} and {path} are the same image twice; remove one."
            )
    return found


def same_size(shown, image):
    """The versions of an image; what the scale leaves over of hr is cut."""
    height, width = next(v for m, v in shown.items() if m != HR).shape[:2]
    over = np.subtract(shown[HR].shape[:2], (height, width))
    if 0 <= over.min() and over.max() < 8:
        shown[HR] = shown[HR][:height, :width]
    for method, picture in shown.items():
        if picture.shape[:2] != (height, width):
            raise UserError(
                f"{image} of {method} has {picture.shape[1]} x "
                f"{picture.shape[0]} pixels, and others {width} x {height}; "
                "all versions of an image must have one size."
            )
    return shown


def central(pictures, size):
    """Of each picture its middle, size pixels a side or all there are."""
    return {
        image: {
            method: middle(picture, size) for method, picture in row.items()
        }
        for image, row in pictures.items()
    }


def middle(picture, size):
    height, width = (min(size, side) for side in picture.shape[:2])
    top, left = np.subtract(picture.shape[:2], (height, width)) // 2
    return cut(picture, (top, left, height, width))


def make_study(pictures, mode="mos", seed=0, title="", note="", zoom=1):
    """(what the page holds, the key to it): dictionaries for JSON.

    pictures: {image: {method: uint8 (H, W, 3)}}, the original among them as
    "hr"; mode: "mos" or "pairs". Equal arguments make equal studies.
    """
    draw = random.Random(seed)
    pictures = {
        image: {NEAREST: coarse(shown[HR])} | shown
        for image, shown in pictures.items()
    }
    methods = list(next(iter(pictures.values())))
    if mode == "pairs" and len(methods) < 4:
        raise UserError(
            "Pairs need two methods to compare, besides the anchors; add one."
        )
    named = label(
        [(i, m) for i, shown in pictures.items() for m in shown], draw
    )
    id_of = {name: picture for picture, name in named.items()}
    if mode == "mos":
        trials = [[picture] for picture in named]
    else:
        # Sorted by their meaningless names, so that places tell nothing.
        trials = [
            sorted(id_of[image, method] for method in pair)
            for image in pictures
            for pair in pairs(methods)
        ]
    trials = label(trials, draw)
    sheet = {
        "mode": mode,
        "title": title or "How good do these pictures look?",
        "note": note,
        "zoom": zoom,
        "examples": examples() if mode == "mos" else [],
        "pictures": {
            p: data_uri(pictures[i][m]) for p, (i, m) in named.items()
        },
        "trials": trials,
    }
    if mode == "pairs":
        sheet["originals"] = {
            trial: id_of[named[shown[0]][0], HR]
            for trial, shown in trials.items()
        }
    study = {"id": sha256(json.dumps(sheet))[:16]} | sheet
    key = {
        "format": KEY,
        "study": study["id"],
        "mode": mode,
        "title": study["title"],
        "seed": seed,
        "images": list(pictures),
        "methods": methods,
        "pictures": {p: list(name) for p, name in named.items()},
        "trials": trials,
    }
    return study, key


def label(things, draw):
    """{id: thing}: ids drawn at random, and the things in their order."""
    ids = draw.sample(range(16**8), len(things))
    return {
        f"{number:08x}": thing
        for number, thing in sorted(zip(ids, things, strict=True))
    }


def pairs(methods):
    """Each method with each other, and the one pair of the anchors."""
    rated = [method for method in methods if method not in ANCHORS]
    return [*combinations(rated, 2), ANCHORS]


def page(study):
    """The study as one HTML file."""
    # Nothing in a script element may look like its end, or like a comment.
    text = json.dumps(study).replace("<", "\\u003c")
    return PAGE.read_text("utf-8").replace("{{study}}", text)


def live(study, key, columns=None):
    """The page within a page; it ends with what this rater's scores say.

    For scores only. columns: {heading: {method: text}}, more for its table.
    """
    reveal = {
        "pictures": key["pictures"],
        "anchors": ANCHORS,
        "columns": columns or {},
    }
    # Not to be read at a glance; who wants to can decode it.
    hidden = base64.b64encode(json.dumps(reveal).encode()).decode()
    text = html.escape(page(study | {"reveal": hidden}))
    return HTML(
        '<div><iframe title="A rating study" style="border: 0; width: 100%"'
        f' srcdoc="{text}"></iframe></div>'
    )


def write_sheet(path, study, key, force=False):
    """Write the page and, beside it, its key; returns both paths."""
    path = Path(path)
    files = {
        path: page(study),
        path.with_suffix(".key.json"): json.dumps(key, indent=1),
    }
    for file in files:
        if file.exists() and not force:
            raise UserError(f"{file} exists; say --force to overwrite it.")
    for file, text in files.items():
        write_text(file, text)
    return list(files)


# --- answers -------------------------------------------------------------


def read_key(path):
    """The key that was written beside a sheet."""
    try:
        key = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a key: {error}") from error
    if not isinstance(key, dict) or key.get("format") != KEY:
        raise UserError(
            f"{path} is no key of a study; name the .key.json beside a sheet."
        )
    return key


def read_record(key, path):
    """What one rater saved; what is wrong with the file is a UserError."""
    try:
        record = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError("is cut short, or no JSON at all") from error
    if not isinstance(record, dict) or record.get("format") != ANSWERS:
        raise UserError("holds no answers to a rating study")
    if record.get("study") != key["study"]:
        raise UserError("belongs to another study")
    if record.get("digest") != digest(record):
        raise UserError("was edited after it was saved")
    try:
        possible = is_possible(key, record)
    except (KeyError, TypeError, ValueError):
        possible = False
    if not possible:
        raise UserError("holds what this study's page cannot have saved")
    return record


def digest(record):
    """What the page computes over all else when it saves."""
    # It gives a change away. It is no signature: who reads the page can
    # compute a new one.
    parts = ("format", "study", "rater", "complete", "answers")
    signed = [record.get(part) for part in parts]
    return sha256(json.dumps(signed, separators=(",", ":")))


def is_possible(key, record):
    """Whether this study's page can have saved it."""
    rater, answers = record["rater"], record["answers"]
    scores, trials = [1, 2, 3, 4, 5], key["trials"]
    return (
        re.fullmatch(r"[A-Za-z0-9_-]{1,32}", rater) is not None
        and [trial for trial, _, _ in answers] == trial_order(key, rater)
        and all(
            answer in (scores if key["mode"] == "mos" else trials[trial])
            and milliseconds >= 0
            for trial, answer, milliseconds in answers
            if answer is not None
        )
        and record["complete"] == (count(record) == len(trials))
    )


def trial_order(key, rater):
    """The trials as this rater saw them."""
    return sorted(
        key["trials"],
        key=lambda t: sha256("/".join((key["study"], rater, t, "order"))),
    )


def given(record):
    """{trial: answer} of what was answered."""
    return {
        t: answer for t, answer, _ in record["answers"] if answer is not None
    }


def count(record):
    """How many answers it holds."""
    return len(given(record))


def make_record(key, rater, answers):
    """What the page saves of {trial: answer}; for raters made of dice."""
    order = trial_order(key, rater)
    record = {
        "format": ANSWERS,
        "study": key["study"],
        "rater": rater,
        "complete": len(answers) == len(order),
        "answers": [
            [t, answers.get(t), 1000 if t in answers else None] for t in order
        ],
    }
    return record | {"digest": digest(record)}


def read_answers(key, paths, incomplete=False):
    """([record of a rater, ...], [(path, why it was left out), ...]).

    Incomplete records are left out too, unless they are asked for.
    """
    found, left_out = {}, []
    for path in sorted({*map(str, paths)}):
        try:
            record = read_record(key, path)
        except UserError as error:
            left_out.append((path, str(error)))
            continue
        if record["complete"] or incomplete:
            found.setdefault(record["rater"], []).append((path, record))
        else:
            share = f"{count(record)} of {len(key['trials'])}"
            left_out.append((path, f"is incomplete ({share} answers)"))
    records = []
    for rater, own in found.items():
        own.sort(key=lambda pair: -count(pair[1]))  # stable
        (first, best), *others = own
        for path, _ in others:
            why = f"is a duplicate: {first} is by {rater} too"
            left_out.append((path, why))
        rivals = [r for _, r in others if count(r) == count(best)]
        if any(given(r) != given(best) for r in rivals):
            why = f"contradicts another file by {rater}; remove one of them"
            left_out.append((first, why))
        else:
            records.append(best)
    return records, left_out


def tabulate(key, records):
    """(columns, values): values is (raters, images, columns), NaN if missing.

    A column of scores is (method,). One of pairs is (method, method), and
    its value is 1 where the first was preferred and 0 where the second was.
    """
    mos, named = key["mode"] == "mos", key["pictures"]
    columns = pairs(key["methods"])
    if mos:
        columns = [(method,) for method in key["methods"]]
    place = {frozenset(column): k for k, column in enumerate(columns)}
    values = np.full((len(records), len(key["images"]), len(columns)), np.nan)
    for rater, record in enumerate(records):
        for trial, answer in given(record).items():
            shown = [named[picture] for picture in key["trials"][trial]]
            image = key["images"].index(shown[0][0])
            k = place[frozenset(method for _, method in shown)]
            value = answer if mos else named[answer][1] == columns[k][0]
            values[rater, image, k] = value
    return columns, values


# --- statistics ----------------------------------------------------------


def told_apart(columns, values):
    """How often each rater found hr better than nearest: (times, of)."""
    if ANCHORS in columns:  # as a pair
        better = 1 - values[..., columns.index(ANCHORS)]
    else:
        low, high = (values[..., columns.index((m,))] for m in ANCHORS)
        better = np.where(np.isnan(high - low), np.nan, high > low)
    return np.nansum(better, axis=1), np.sum(~np.isnan(better), axis=1)


def mean(values, axis):
    """The mean of what is there; NaN where nothing is."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.nansum(values, axis) / there.sum(axis)


def resampled_means(values, draws=DRAWS, seed=0):
    """Column means after drawing raters and images again: (draws, columns).

    Both are drawn with replacement, each rater with all images and each
    image with all raters (Owen 2007, the pigeonhole bootstrap).
    """
    rng = np.random.default_rng(seed)
    raters, images, _ = values.shape
    drawn = [
        rng.multinomial(n, np.full(n, 1 / n), draws).astype(float)
        for n in (raters, images)
    ]
    there = ~np.isnan(values)
    total, number = (
        np.einsum("dr,di,rik->dk", *drawn, array, optimize=True)
        for array in (np.nan_to_num(values), there.astype(float))
    )
    with np.errstate(invalid="ignore"):
        return total / number


def interval(draws):
    """The middle 95 % of a figure's draws: {"low": ..., "high": ...}."""
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return {"low": None, "high": None}
    low, high = np.percentile(draws, (2.5, 97.5))
    return {"low": float(low), "high": float(high)}


def number(value):
    """For JSON, which knows no NaN."""
    return None if np.isnan(value) else float(value)


def agreement(values, level):
    """Krippendorff's alpha of (raters, ...); None where it has no meaning."""
    rated = values.reshape(len(values), -1)
    several = np.sum(~np.isnan(rated), axis=0) > 1
    if len(np.unique(rated[:, several][~np.isnan(rated[:, several])])) < 2:
        return None
    return float(krippendorff.alpha(rated, level_of_measurement=level))


def flip_test(x, y):
    """The p value of "paired x and y have the same mean".

    x and y change places in all ways, or in 9,999 random ones where there are
    more. Units where one of them is missing are left out.
    """
    there = ~np.isnan(x - y)
    if there.sum() < 2:
        return 1.0
    test = permutation_test(
        (x[there], y[there]),
        lambda a, b, axis: np.mean(a - b, axis),
        permutation_type="samples",
        n_resamples=9999,
        rng=0,
    )
    return float(test.pvalue)


def holm(p_values):
    """Holm's correction: p values that hold for all tests at once."""
    return multipletests(p_values, method="holm")[1].tolist()


def bradley_terry(wins, prior=0.5):
    """Scores from wins[i, j], how often i was preferred to j: (n,), mean 0.

    The odds that i is preferred to j are exp(score i - score j). `prior` is
    added to each count, or one who never lost would be infinitely good; two
    who never met thereby count as equals.
    """
    number = len(wins)
    first, second = np.triu_indices(number, 1)
    rows = np.arange(len(first))
    design = np.zeros((len(first), number))
    design[rows, first], design[rows, second] = 1, -1
    counts = np.stack([wins[first, second], wins[second, first]], 1) + prior
    played = counts.sum(axis=1) > 0
    # Only differences count, so that the last score can be zero.
    model = GLM(counts[played], design[played, :-1], family=Binomial())
    with np.errstate(divide="ignore", invalid="ignore"):  # one pair: 0 / 0
        scores = np.append(model.fit().params, 0)
    return scores - scores.mean()


def win_counts(columns, shares, answers):
    """Pairs as a matrix: wins[i, j], and the names of its rows."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    wins = np.zeros((len(names), len(names)))
    for (a, b), share, number in zip(columns, shares, answers, strict=True):
        i, j = names.index(a), names.index(b)
        wins[i, j], wins[j, i] = share * number, (1 - share) * number
    return names, np.nan_to_num(wins)


# --- the analysis --------------------------------------------------------


def analyze(key, paths, incomplete=False):
    """All that the answers in these files say, as a dictionary for JSON."""
    records, left_out = read_answers(key, paths, incomplete)
    columns, values = tabulate(key, records)
    times, of = told_apart(columns, values)
    careful = times >= np.maximum(1, TOLD_APART * of)
    raters = [
        {
            "rater": record["rater"],
            "answers": count(record),
            "told_apart": int(times[k]),
            "of": int(of[k]),
            "counted": bool(careful[k]),
        }
        for k, record in enumerate(records)
    ]
    if not careful.any():
        reasons = [f"{path} {why}" for path, why in left_out]
        reasons += [f"{r['rater']} did not tell anchors apart" for r in raters]
        reasons = "; ".join(reasons) or "no files were named"
        raise UserError(f"There are no answers to analyze: {reasons}.")
    values = values[careful]
    judge = score_figures if key["mode"] == "mos" else pair_figures
    return {
        "study": key["study"],
        "title": key["title"],
        "mode": key["mode"],
        "images": len(key["images"]),
        "raters": raters,
        "left_out": [{"file": path, "why": why} for path, why in left_out],
        **judge(columns, values),
    }


def score_figures(columns, values):
    """MOS, agreement and tests: values (raters, images, methods)."""
    draws = resampled_means(values)
    means = mean(values, (0, 1))
    methods = {}
    for k, (method,) in enumerate(columns):
        methods[method] = {
            "score": number(means[k]),
            **interval(draws[:, k]),
            "scores": [int(np.sum(values[..., k] == s)) for s in range(1, 6)],
        }
    rated = [k for k, (m,) in enumerate(columns) if m not in ANCHORS]
    per_unit = {"raters": mean(values, 1), "images": mean(values, 0)}
    tests = [
        compare(
            columns[a][0],
            columns[b][0],
            {unit: (m[:, a], m[:, b]) for unit, m in per_unit.items()},
            means[a] - means[b],
            draws[:, a] - draws[:, b],
        )
        for a, b in combinations(rated, 2)
    ]
    return {
        "methods": methods,
        "alpha": agreement(values[..., rated], "ordinal"),
        "tests": correct(tests),
    }


def pair_figures(columns, values):
    """Bradley-Terry scores, agreement and tests: values of `tabulate`."""
    rated = [k for k, column in enumerate(columns) if column != ANCHORS]
    columns, values = [columns[k] for k in rated], values[..., rated]
    draws, shares = resampled_means(values), mean(values, (0, 1))
    answers = np.sum(~np.isnan(values), axis=(0, 1))
    names, wins = win_counts(columns, shares, answers)
    scores = bradley_terry(wins)
    spread = np.array(
        [bradley_terry(win_counts(columns, s, answers)[1]) for s in draws]
    )
    methods = {}
    for k, name in enumerate(names):
        shown = np.sum(wins[k] + wins[:, k])
        methods[name] = {
            "score": number(scores[k]),
            **interval(spread[:, k]),
            "preferred": number(np.sum(wins[k]) / max(shown, 1)),
        }
    # Each pair in both directions: to agree by chance is one in two then,
    # in whichever order the methods are named.
    both_ways = np.concatenate([values, 1 - values], axis=2)
    per_unit = {"raters": mean(values, 1), "images": mean(values, 0)}
    tests = [
        compare(
            a,
            b,
            {unit: (m[:, k], 1 - m[:, k]) for unit, m in per_unit.items()},
            2 * shares[k] - 1,
            2 * draws[:, k] - 1,
        )
        for k, (a, b) in enumerate(columns)
    ]
    return {
        "methods": methods,
        "alpha": agreement(both_ways, "nominal"),
        "tests": correct(tests),
    }


def compare(a, b, units, difference, draws):
    """One row of the tests between methods a and b, not yet corrected."""
    p_values = {f"p_{unit}": flip_test(*xy) for unit, xy in units.items()}
    row = {"a": a, "b": b, "difference": number(difference)}
    return row | interval(draws) | p_values


def correct(tests):
    """The tests with their p values corrected by Holm, for each unit."""
    for unit in ("p_raters", "p_images"):
        corrected = holm([test[unit] for test in tests]) if tests else []
        for test, p in zip(tests, corrected, strict=True):
            test[unit] = p
    return tests


# --- what is shown -------------------------------------------------------


def ranked(result):
    """(method, its figures), the best first."""
    return sorted(
        result["methods"].items(),
        key=lambda item: (item[1]["score"] is None, -(item[1]["score"] or 0)),
    )


def method_table(result):
    """(headings, rows): each method's score, interval and answers."""
    mos = result["mode"] == "mos"
    rows = [
        [method, write(f["score"]), *span(f), extra(f)]
        for method, f in ranked(result)
    ]
    heading = "MOS" if mos else "Bradley-Terry score"
    last = "scores of 1, 2, 3, 4, 5" if mos else "preferred"
    return ["method", heading, "95 % from", "to", last], rows


def test_table(result):
    """(headings, rows): how any two methods differ, and how surely."""
    rows = [
        [
            f"{test['a']} minus {test['b']}",
            write(test["difference"], "+"),
            *span(test, "+"),
            f"{test['p_raters']:.3f}",
            f"{test['p_images']:.3f}",
        ]
        for test in result["tests"]
    ]
    headings = ["methods", "difference", "95 % from", "to"]
    return [*headings, "p over raters", "p over images"], rows


def extra(figures):
    if "scores" in figures:
        return ", ".join(map(str, figures["scores"]))
    return f"{100 * figures['preferred']:.0f} %"


def write(value, sign=""):
    return "-" if value is None else f"{value:{sign}.2f}"


def span(figures, sign=""):
    return write(figures["low"], sign), write(figures["high"], sign)


def draw(result):
    """A figure: each method's score with its interval, the best on top."""
    mos = result["mode"] == "mos"
    names, figures = zip(*ranked(result)[::-1], strict=True)
    rows = np.arange(len(names))
    figure, axes = plt.subplots(
        1,
        2 if mos else 1,
        figsize=(8 if mos else 5, 0.4 * len(rows) + 1.2),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    left = axes[0, 0]
    for row, name, f in zip(rows, names, figures, strict=True):
        color = COLORS[5] if name in ANCHORS else COLORS[0]
        if f["score"] is not None:
            left.plot([f["low"], f["high"]], [row, row], color=color, lw=2)
            left.plot(f["score"], row, "o", color=color)
    left.set(yticks=rows, yticklabels=names, xlabel=method_table(result)[0][1])
    left.grid(alpha=0.3)
    if mos:
        left.set_xlim(0.9, 5.1)
        begin = np.zeros(len(rows))
        shades = plt.get_cmap("cividis")(np.linspace(0, 1, 5))
        counts = np.array([f["scores"] for f in figures], float)
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        for score, share in enumerate(shares.T, 1):
            axes[0, 1].barh(
                rows,
                share,
                left=begin,
                height=0.7,
                color=shades[score - 1],
                label=score,
            )
            begin += share
        axes[0, 1].set(xlabel="share of scores (%)", xlim=(0, 100))
        figure.legend(title="score", loc="outside right center")
    return figure


def aligned(headings, rows):
    """A table as text."""
    widths = [
        max(map(len, column)) for column in zip(headings, *rows, strict=True)
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [headings, *rows]
    )


def report(result):
    """The result as text."""
    counted = [r for r in result["raters"] if r["counted"]]
    lines = [
        f"{item['file']} {item['why']}: left out"
        for item in result["left_out"]
    ]
    lines += [
        f"{r['rater']} told the anchors apart in {r['told_apart']} of "
        f"{r['of']} images: left out"
        for r in result["raters"]
        if not r["counted"]
    ]
    alpha = write(result["alpha"])
    lines += [
        f"{len(counted)} raters, {result['images']} images, "
        f"Krippendorff's alpha {alpha}",
        "",
        aligned(*method_table(result)),
        "",
        aligned(*test_table(result)),
        "",
    ]
    return "\n".join(lines)


def write_result(folder, result):
    """Write result.json and result.png into a folder; returns the paths."""
    folder = Path(folder)
    paths = [folder / "result.json", folder / "result.png"]
    write_json(paths[0], result)
    figure = draw(result)
    with atomic_write(paths[1]) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)
    return paths

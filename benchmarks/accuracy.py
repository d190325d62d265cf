"""How far published figures are from the exact ones, at every step, for mailings of four sizes; and who may choose the
split.

    python -m benchmarks.accuracy          # tables and plot of docs/publishing.md, and results/accuracy.json

Real noise (OpenDP), the consistent figures as an analyst reads them. What recipients do is made up: openers and
clickers come as mailings' do, quickly and then ever more slowly (a stretched exponential), the audience of a
newsletter, of a mail to businesses at night, and one that does nothing. For each figure and step: the error within
which 95 of 100 mailings lie; then the largest over steps and audiences.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from aggregates.continual import Floats, measured
from aggregates.figures import FIGURES, RHO, Figure
from aggregates.rules import Actor
from aggregates.shown import shown
from aggregates.steps import HOURS
from benchmarks import results
from streams.publish.noise import draw

PAGE, PLOT = results.ROOT / "docs" / "publishing.md", results.ROOT / "docs" / "accuracy.svg"
SIZES = (300, 1_000, 12_000, 200_000)
LINKS = tuple(f"link{n}" for n in range(8))
Audience = dict[str, float]
AUDIENCES: dict[str, Audience] = {
    "newsletter": {"open": 0.45, "click": 0.12, "hours": 12, "shape": 0.6},
    "quick": {"open": 0.6, "click": 0.3, "hours": 2, "shape": 0.5},
    "slow": {"open": 0.3, "click": 0.05, "hours": 60, "shape": 1.0},
    "nobody": {"open": 0.0, "click": 0.0, "hours": 12, "shape": 0.6},
}


def name(figure: Figure) -> str:
    """As the tables say it."""
    what = {"all": {"open": "opened", "click": "clicked"}[figure.kind], "link": "a link", "device": "a device"}
    return what[figure.dimension] + ("" if figure.actor is Actor.HUMAN else ", machines")


def history(figure: Figure, sent: int, audience: Audience, rng: np.random.Generator) -> Floats:
    """New recipients, step by cell."""
    hours = np.array([HOURS[step] for step in figure.steps])
    reached = 1 - np.exp(-((hours / audience["hours"]) ** audience["shape"]))
    parts = np.diff(np.concatenate([[0.0], reached, [1.0]]))
    values = figure.values(LINKS)
    # No part is larger than its whole: what is shown makes use of that.
    weights = np.ones(1) if figure.dimension == "all" else 0.6 ** np.arange(1, len(values) + 1)
    whole = sent * audience[figure.kind] * (1.0 if figure.actor is Actor.HUMAN else 0.3)
    drawn = [rng.multinomial(round(whole * weight), parts)[:-1] for weight in weights]
    return np.array(drawn, float).T


def errors(sent: int, mailings: int, seed: int) -> Iterator[tuple[str, Figure, Floats, Any]]:
    """For each audience and figure: |shown - exact| in recipients, and whether the margin holds the truth; both mailing
    by step by cell."""
    for audience, does in AUDIENCES.items():
        rng = np.random.default_rng(seed)
        found: dict[Figure, list[Floats]] = {figure: [] for figure in FIGURES}
        within: dict[Figure, list[Any]] = {figure: [] for figure in FIGURES}
        for _ in range(mailings):
            exact = {figure: history(figure, sent, does, rng) for figure in FIGURES}
            noisy = {
                figure: np.array(draw(figure, new.shape[1], measured(len(new), new).ravel().tolist())).reshape(
                    new.shape
                )
                for figure, new in exact.items()
            }
            read = shown(noisy, sent, LINKS)
            for figure, new in exact.items():
                cells = [read[figure, value] for value in figure.values(LINKS)]
                off = np.abs(np.array([[one.recipients for one in cell] for cell in cells]).T - np.cumsum(new, axis=0))
                found[figure].append(off)
                within[figure].append(off <= np.array([[one.margin for one in cell] for cell in cells]).T)
        for figure in FIGURES:
            yield audience, figure, np.array(found[figure]), np.array(within[figure])


def main() -> None:
    """Measure, print, and write the page."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--mailings", type=int, default=400, help="of each size and audience")
    arguments.add_argument("--seed", type=int, default=1, help="of what recipients do; noise has none")
    asked = arguments.parse_args()
    p95: dict[tuple[int, str, Figure], Floats] = {}
    of_all: dict[tuple[str, Figure], list[tuple[Floats, Any]]] = {}  # the noise does not depend on the size
    for sent in SIZES:
        for audience, figure, off, within in errors(sent, asked.mailings, asked.seed):
            p95[sent, audience, figure] = np.percentile(off, 95, axis=(0, 2))
            of_all.setdefault((audience, figure), []).append((off, within))
    pooled = {
        which: np.percentile(np.concatenate([off for off, _ in found]), 95, axis=(0, 2))
        for which, found in of_all.items()
    }
    covered = min(
        float(np.concatenate([within for _, within in found]).mean(axis=(0, 2)).min()) for found in of_all.values()
    )
    lines = ["| figure | share of rho | steps | " + " | ".join(f"{sent:,}" for sent in SIZES) + " | worst |"]
    lines.append("| --- | --: | --: |" + " --: |" * (len(SIZES) + 1))
    said: dict[str, Any] = {"mailings": asked.mailings, "seed": asked.seed, "rho": RHO, "covered": covered}
    for figure in FIGURES:
        usual = {sent: float(p95[sent, "newsletter", figure].max()) for sent in SIZES}
        worst = max(float(of.max()) for (_, which), of in pooled.items() if which == figure)
        said[name(figure)] = {"usual": usual, "worst": worst}
        cells = [f"± {of:.0f} ({100 * of / sent:.2g} %)" for sent, of in usual.items()]
        lines.append(
            f"| {name(figure)} | {figure.share:.1%} | {len(figure.steps)} | {' | '.join(cells)} | ± {worst:.0f} |"
        )
    lines += ["", from_on(pooled, said)]
    lines.append(
        f"The margin shown held the truth in at least {covered:.1%} of the mailings, at every step of every figure."
    )
    results.write("accuracy", said, "\n".join(lines), page=PAGE)
    plot(p95)


def from_on(pooled: dict[tuple[str, Figure], Floats], said: dict[str, Any]) -> str:
    """From how many recipients on the aims hold: the error in recipients hardly depends on the size."""
    opened, clicked, links = FIGURES[:3]
    usual = [audience for audience in AUDIENCES if audience != "nobody"]
    people = max(float(pooled[who, one].max()) for who in usual for one in (opened, clicked))
    link = max(float(pooled[who, links].max()) for who in usual)
    said["one_point_from"], said["links_two_points_from"] = people * 100, link * 50
    return (
        f"Opened and clicked are within one percentage point (95 %) at every one of 40 steps from {people * 100:,.0f} "
        f"recipients on, links within two points from {link * 50:,.0f} on, for every audience but the one that does "
        "nothing."
    )


def plot(p95: dict[tuple[int, str, Figure], Floats]) -> None:
    """The error by hours after sending, one line a size."""
    import matplotlib as mpl  # noqa: PLC0415  only for whoever measures

    mpl.use("svg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    with plt.rc_context({"font.size": 9, "svg.hashsalt": "accuracy", "svg.fonttype": "none"}):
        drawing, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, constrained_layout=True)
        for which, figure in zip(axes, FIGURES[:3], strict=True):
            for sent in SIZES:
                share = 100 * p95[sent, "newsletter", figure] / sent
                which.plot([HOURS[step] for step in figure.steps], share, marker=".", label=f"{sent:,} recipients")
            which.set(xscale="log", yscale="log", title=name(figure), xlabel="hours after sending")
            which.grid(alpha=0.3)
        axes[0].set_ylabel("error within which 95 % lie, points")
        axes[0].legend(fontsize=8)
        drawing.savefig(PLOT, metadata={"Date": None})
        plt.close(drawing)


if __name__ == "__main__":
    main()

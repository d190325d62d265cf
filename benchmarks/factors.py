"""The factorisations of `aggregates/factors.toml`: with which matrix running totals are measured at least noise.

    python -m benchmarks.factors

A = B C, A the lower-triangular ones; whoever measures C x with Gaussian noise and adds up with B has, at step t, an
error of |column of C| |row t of B|. Over M = C^T C the largest error is convex (Li, Miklau, Hay, McGregor, Rastogi
2015): with weights on the steps the best M solves a fixed point (Denisov, McMahan, Rush, Smith, Thakurta 2022, section
4), and the weights go up where the error is largest until it is the same at every step. Rounding afterwards costs
nothing: the sensitivity is computed from the numbers as they stand in the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aggregates.figures import FIGURES

FILE = Path(__file__).resolve().parents[1] / "aggregates" / "factors.toml"
ROUNDS, DIGITS = 4000, 5
HEAD = """\
# Lower-triangular C with which running totals are measured (aggregates/continual.py), row by row, for each number of
# steps. Written by `python -m benchmarks.factors`; a mailing is measured with one C from its first step to its last, so
# what stands here must not change: another C gets a section of its own.
"""


def best(steps: int) -> NDArray[np.float64]:
    """The lower-triangular C of unit columns whose largest error is the least there is."""
    ones = np.tril(np.ones((steps, steps)))
    weights, multipliers = np.full(steps, 1 / steps), np.ones(steps)
    gram = np.eye(steps)
    for _ in range(ROUNDS):
        wanted = ones.T @ (weights[:, None] * ones)
        for _ in range(3):
            scale = np.sqrt(multipliers)
            values, vectors = np.linalg.eigh(scale[:, None] * wanted * scale)
            gram = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T / scale[:, None] / scale
            multipliers = multipliers * np.diag(gram)
        error = np.einsum("ti,ij,tj->t", ones, np.linalg.inv(gram), ones)
        weights = weights * np.sqrt(error / error.max())
        weights /= weights.sum()
    unit = np.sqrt(np.diag(gram))
    # Cholesky from the other end: U U^T with U upper-triangular, so that C = U^T is lower-triangular and C^T C = M.
    upper = np.linalg.cholesky((gram / unit[:, None] / unit)[::-1, ::-1])[::-1, ::-1]
    return np.asarray(upper.T)


def main() -> None:
    """Write the file anew."""
    parts = [HEAD]
    for steps in sorted({len(figure.steps) for figure in FIGURES}):
        measure = np.round(best(steps), DIGITS)
        error = np.linalg.norm(measure, axis=0).max() * np.linalg.norm(
            np.tril(np.ones((steps, steps))) @ np.linalg.inv(measure), axis=1
        )
        print(f"{steps} steps: error {error.min():.4f} to {error.max():.4f} noise units")
        rows = ",\n".join(f"    {[float(one) for one in row[: n + 1]]}" for n, row in enumerate(measure))
        parts.append(f"[[factor]]\nsteps = {steps}\nrows = [\n{rows},\n]\n")
    FILE.write_text("\n".join(parts))


if __name__ == "__main__":
    main()

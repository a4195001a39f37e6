"""Evaluates the runs of `experiments.transfer`: means, gains, a table and curves."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy

with epy.lazy_imports():
    import matplotlib
    from matplotlib import figure

# The start with which other starts are compared.
_BASELINE = "scratch"

_NETWORKS = {
    "dncnn": "DnCNN",
    "nafnet_s": "NAFNet s",
    "efficientnet": "EfficientNetB0",
}
_STARTS = {
    "scratch": "from scratch",
    "published": "published denoiser",
    "denoising": "denoising, our own",
    "deblurring": "deblurring, our own",
    "imagenet": "ImageNet encoder, fine-tuned",
    "frozen": "encoder frozen",
}
_KINDS = {
    "full": "Full run",
    "cpu": "Short run, made on a CPU",
    "quick": "Quick run, too short to conclude from",
}
_COLORS = {
    "scratch": "0.45",
    "published": "C0",
    "denoising": "C0",
    "deblurring": "C1",
    "imagenet": "C2",
    "frozen": "C3",
}


def split_name(arm: str) -> tuple[str, str]:
    """Returns network and start of an arm's name."""
    network, _, start = arm.rpartition("_")
    return network, start


def cells_of(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns means over seeds.

    Args:
      runs: at least two of each arm and fraction, see `transfer.run`.

    Returns:
      For each arm and fraction "psnr", "std" (sample standard deviation) and
      "ssim" on the test pairs, "start" (PSNR before training), and "curve", mean
      validation PSNR by step.
    """
    keys = list(dict.fromkeys((run["arm"], run["fraction"]) for run in runs))
    cells = []
    for arm, fraction in keys:
        members = [r for r in runs if (r["arm"], r["fraction"]) == (arm, fraction)]
        psnr = [run["test"]["end"]["psnr"] for run in members]
        curves = np.array([run["curve"] for run in members])  # (seeds, points, 2)
        cells.append(
            {
                "arm": arm,
                "fraction": fraction,
                "psnr": float(np.mean(psnr)),
                "std": float(np.std(psnr, ddof=1)),
                "ssim": float(np.mean([r["test"]["end"]["ssim"] for r in members])),
                "start": float(np.mean([r["test"]["start"]["psnr"] for r in members])),
                "curve": [
                    [int(step), round(float(value), 4)]
                    for step, value in curves.mean(axis=0)
                ],
            }
        )
    return cells


def gains_of(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the gain of each start over the same network from scratch.

    Args:
      cells: from `cells_of`.

    Returns:
      For each start and fraction: "gain" in dB on the test pairs; "spread", the
      standard deviation of the difference of two runs; "pays", whether the gain is
      larger; "catches_up", the share of the budget after which the mean validation
      curve reaches the last value of the one from scratch, or None.
    """
    by_name = {(cell["arm"], cell["fraction"]): cell for cell in cells}
    gains = []
    for cell in cells:
        network, start = split_name(cell["arm"])
        base = by_name.get((f"{network}_{_BASELINE}", cell["fraction"]))
        if start == _BASELINE or base is None:
            continue
        gain = cell["psnr"] - base["psnr"]
        spread = float(np.hypot(cell["std"], base["std"]))
        last, goal = base["curve"][-1]
        reached = [step for step, psnr in cell["curve"] if psnr >= goal]
        gains.append(
            {
                "arm": cell["arm"],
                "fraction": cell["fraction"],
                "gain": gain,
                "spread": spread,
                "pays": gain > spread,
                "catches_up": reached[0] / last if reached else None,
            }
        )
    return gains


def _sentence(gain: Mapping[str, Any]) -> str:
    text = f"{gain['gain']:+.2f} dB at {gain['fraction']:.0%}"
    if abs(gain["gain"]) <= gain["spread"]:
        return f"{text} (within the spread of {gain['spread']:.2f})"
    if gain["gain"] < 0 or gain["catches_up"] is None:
        return text
    return f"{text} (as good after {gain['catches_up']:.0%} of the steps)"


def answer(found: Mapping[str, Any], arm: str) -> str:
    """Returns a sentence on when a start pays, computed from the gains."""
    network, start = split_name(arm)
    gains = [gain for gain in found["gains"] if gain["arm"] == arm]
    details = [_sentence(gain) for gain in gains]
    paying = [f"{gain['fraction']:.0%}" for gain in gains if gain["pays"]]
    verdict = f"pays at {', '.join(paying)}" if paying else "does not pay"
    return f"{_NETWORKS[network]}, {_STARTS[start]}: {verdict} — {'; '.join(details)}."


def to_markdown(found: Mapping[str, Any]) -> str:
    """Returns the table and its conclusions.

    Args:
      found: the content of `transfer.json`.

    Returns:
      Markdown.
    """
    fractions = found["identity"]["fractions"]
    counts = found["counts"]
    heads = [f"{f:.0%} ({counts[f'{f:g}']:,} pairs)" for f in fractions]
    lines = [
        f"| network | begins with | before | {' | '.join(heads)} |",
        f"|---|---|--:|{'--:|' * len(heads)}",
    ]
    for arm in _arms(found["cells"]):
        network, start = split_name(arm)
        members = [cell for cell in found["cells"] if cell["arm"] == arm]
        cells = [f"{cell['psnr']:.2f} ± {cell['std']:.2f}" for cell in members]
        lines.append(
            f"| {_NETWORKS[network]} | {_STARTS[start]} | {members[0]['start']:.2f} "
            f"| {' | '.join(cells)} |"
        )
    answers = [f"- {answer(found, arm)}" for arm in _arms(found["gains"])]
    left = [f"- Left out: {name}, {why}." for name, why in found["left_out"].items()]
    budget, seeds = found["identity"]["scale"]["budget"], found["identity"]["seeds"]
    kind = _KINDS[found["scale"]]
    size = f"{budget['image_size']}×{budget['image_size']}"
    note = (
        f"{kind}: {budget['steps']:,} steps of {budget['batch_size']} pairs of "
        f"{size}, learning rate {budget['learning_rate']:g}, {seeds} seeds, mean ± "
        f"standard deviation. PSNR in dB on "
        f"{found['measured_on']}; doing nothing {found['input']['psnr']:.2f}. "
        f"EfficientNet's encoder: {found['encoder']}. "
        f"Protocol: {found['protocol']}."
    )
    return "\n".join([*lines, "", *answers, *left, "", note, ""])


def _arms(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows))


def to_svg(found: Mapping[str, Any]) -> str:
    """Draws mean validation PSNR over the steps, by network (rows) and fraction.

    Args:
      found: the content of `transfer.json`.

    Returns:
      An SVG file, the same for the same results.
    """
    cells, fractions = found["cells"], found["identity"]["fractions"]
    networks = list(dict.fromkeys(split_name(cell["arm"])[0] for cell in cells))
    with matplotlib.rc_context({"svg.hashsalt": "transfer", "font.size": 9}):
        drawing = figure.Figure(
            figsize=(3.4 * len(fractions), 2.5 * len(networks)), layout="constrained"
        )
        axes = drawing.subplots(
            len(networks), len(fractions), sharey="row", squeeze=False
        )
        for row, network in enumerate(networks):
            for column, fraction in enumerate(fractions):
                _panel(axes[row, column], cells, network, fraction)
            axes[row, 0].set_ylabel(f"{_NETWORKS[network]}\nvalidation PSNR, dB")
            axes[row, -1].legend(fontsize=7, frameon=False, loc="lower right")
        for column, fraction in enumerate(fractions):
            axes[0, column].set_title(f"{fraction:.0%} of the pairs")
            axes[-1, column].set_xlabel("steps")
        file = io.StringIO()
        drawing.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _panel(
    axes: Any, cells: Sequence[Mapping[str, Any]], network: str, fraction: float
) -> None:
    for cell in cells:
        family, start = split_name(cell["arm"])
        if (family, cell["fraction"]) == (network, fraction):
            look = {"color": _COLORS[start], "marker": "o", "markersize": 2.5}
            axes.plot(*zip(*cell["curve"], strict=True), label=_STARTS[start], **look)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")

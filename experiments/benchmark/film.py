"""Measures how well and how fast films are restored.

    python -m experiments.benchmark film --data_dir=BENCHMARK

The benchmark is a folder of tracks, `dirt` and `worn`, with the same FFV1 files in the
folders `input`, `output` (the target) and `mask` (opacity of what lies on the frame)
of each. PSNR is of RGB in 8 bits, of each frame; frames are averaged to clips, clips to
tracks. Inside damage is where opacity is over 0.1, outside where it is under 0.01, both
over all pixels of a clip. Clips that trained the finder and those that it never saw are
distinguished.
"""

import functools
import multiprocessing
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import av
import numpy as np
import tqdm

from restoration.base import config, errors
from restoration.inference import film, film_finding, film_jobs

# Tracks, and with what settings they are restored.
_RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dirt": ("dirt", "input", {}),
    "dirt, denoised": ("dirt", "input", {"denoise": True}),
    "dirt, spikes alone": ("dirt", "input", {"film_finder": "spikes"}),
    "worn, steadied": ("worn", "input", {"stabilize": True, "deflicker": True}),
    "clean": ("dirt", "output", {}),
}

_INSIDE, _OUTSIDE = 25, 2


def _shortened(path: pathlib.Path, target: pathlib.Path, most: int) -> None:
    """Copies the first frames of a film whose every frame stands alone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            if number < most and packet.size:
                packet.stream = copy
                out.mux(packet)


def _frames(path: pathlib.Path, form: str = "rgb24") -> list[np.ndarray]:
    with av.open(str(path)) as film_file:
        return [f.to_ndarray(format=form) for f in film_file.decode(video=0)]


def _psnr(squared: np.ndarray) -> float:
    if not squared.size:
        return float("nan")
    return float(min(100, -10 * np.log10(max(float(np.mean(squared)), 1e-10))))


def score(
    restored: pathlib.Path, target: pathlib.Path, mask: pathlib.Path
) -> dict[str, float]:
    """Scores one film: PSNR in dB, whole, inside and outside damage, worst frame."""
    found = _frames(restored)
    wanted = _frames(target)
    if len(found) != len(wanted):
        raise errors.InputError(
            f"{restored}: {len(found)} frames where {len(wanted)} are wanted"
        )
    return score_frames(found, wanted, _frames(mask, "gray"))


def score_frames(
    found: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
) -> dict[str, float]:
    """Scores frames, uint8 (height, width, 3); masks are uint8 (height, width)."""
    squared = [
        ((a.astype(np.float64) - b) / 255) ** 2
        for a, b in zip(found, wanted, strict=True)
    ]
    whole = [_psnr(x) for x in squared]

    def part(inside: Any) -> float:
        return _psnr(
            np.concatenate([x[inside(m)] for x, m in zip(squared, masks, strict=True)])
        )

    return {
        "psnr": float(np.mean(whole)),
        "inside": part(lambda m: m > _INSIDE),
        "outside": part(lambda m: m <= _OUTSIDE),
        "worst": min(whole),
    }


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        name: round(float(np.nanmean([row[name] for row in rows])), 2)
        for name in rows[0]
    }


def _trained_on() -> set[str]:
    """Returns the names of the clips that trained the shipped finder."""
    card = film_finding.WEIGHTS.with_suffix(".json")
    if not card.is_file():
        return set()
    films = config.parse(card.read_text(encoding="utf-8"))["training data"]["films"]
    return {pathlib.PurePath(name).stem for name in films}


def measure(
    data_dir: str,
    quick: bool,
    frames: int = 0,
    workers: int = 1,
    peer_python: str = "",
) -> dict[str, Any]:
    """Restores every clip of a benchmark in every way, and scores the results.

    Args:
      data_dir: the benchmark's folder.
      quick: the first four frames of each clip alone.
      frames: the first so many frames alone; 0 for all.
      workers: ways that are measured at once; speed is of one alone.
      peer_python: a Python that has VapourSynth, to measure `film_peer` beside; "":
        it is not measured.

    Raises:
      InputError: where the folder does not hold the benchmark.
    """
    root = pathlib.Path(data_dir)
    clips = sorted(p.name for p in root.glob("dirt/output/*.mkv"))
    if not clips:
        raise errors.InputError(
            f"--data_dir={data_dir}: no clips in dirt/output; give the folder "
            "of a film benchmark"
        )
    most = 4 if quick else frames or 1 << 30
    known = _trained_on()
    result: dict[str, Any] = {
        "protocol": __doc__.strip().split("\n\n")[2].replace("\n", " "),
        "frames of each clip": "all" if most == 1 << 30 else most,
        "clips": [pathlib.PurePath(c).stem for c in clips],
        "clips the finder never saw": [
            pathlib.PurePath(c).stem
            for c in clips
            if pathlib.PurePath(c).stem not in known
        ],
        "finder": "network" if film_finding.WEIGHTS.is_file() else "spikes",
        "peers": "SpotLess" if peer_python else "not run",
        "runs": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for track in ("dirt", "worn"):
            for side in ("input", "output", "mask"):
                for clip in clips:
                    path = pathlib.Path(track, side, clip)
                    _shortened(root / path, work / path, most)
        for track in ("dirt", "worn"):
            rows = {
                clip: score(
                    *(work / track / s / clip for s in ("input", "output", "mask"))
                )
                for clip in clips
            }
            result["runs"][f"{track}, nothing done"] = _summary(rows, known)
        for track in ("dirt", "worn") if peer_python else ():
            rows, speed = _run_peer(peer_python, work / track, clips)
            name = f"{track}, SpotLess"
            result["runs"][name] = _summary(rows, known)
            result["runs"][name]["frames a second"] = speed
        ways = functools.partial(_run, work=work, clips=clips)
        spawn = multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(max(workers, 1), spawn) as pool:
            # Without the network's weights the first run is of spikes alone.
            names = [
                n for n in _RUNS if film_finding.WEIGHTS.is_file() or "alone" not in n
            ]
            for name, (rows, speed) in zip(names, pool.map(ways, names), strict=True):
                summary = _summary(rows, known)
                summary["settings"] = _RUNS[name][2]
                # Several at once say nothing about speed.
                summary["frames a second"] = speed if workers < 2 else None
                result["runs"][name] = summary
    return result


def _run(
    name: str, work: pathlib.Path, clips: Sequence[str]
) -> tuple[dict[str, dict[str, float]], float]:
    """Restores all clips in one way; returns their scores and frames a second."""
    track, side, settings = _RUNS[name]
    chosen = film_jobs.Settings(**settings)
    find = film_finding.load_finder(chosen)
    rows, seconds, count = {}, 0.0, 0
    out = work / "restored" / name
    for clip in tqdm.tqdm(clips, desc=name, unit="clip"):
        job = film_jobs.Job(work / track / side / clip, out / pathlib.Path(clip).stem)
        start = time.monotonic()
        done = film.restore_film(job, chosen, find)
        seconds += time.monotonic() - start
        if done.error:
            raise errors.InputError(done.error)
        target, mask = (work / track / s / clip for s in ("output", "mask"))
        rows[clip] = score(done.output, target, mask)
        count += len(_frames(target, "gray"))
        shutil.rmtree(out)
    return rows, round(count / seconds, 2)


def _run_peer(
    python: str, track: pathlib.Path, clips: Sequence[str]
) -> tuple[dict[str, dict[str, float]], float]:
    """Cleans the clips of a track with the peer; as `_run`."""
    rows, seconds, count = {}, 0.0, 0
    script = pathlib.Path(__file__).with_name("film_peer.py")
    for clip in tqdm.tqdm(clips, desc="SpotLess", unit="clip"):
        shown = np.stack(_frames(track / "input" / clip))
        planes = np.ascontiguousarray(shown.transpose(0, 3, 1, 2))
        try:
            done = subprocess.run(
                [python, str(script), *map(str, shown.shape[:3])],
                input=planes.tobytes(), capture_output=True, check=False,
            )  # fmt: skip
        except OSError as error:
            raise errors.InputError(
                f"--peer_python={python}: {error.strerror}; give a Python 3.12 or "
                "newer that has VapourSynth"
            ) from None
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise errors.InputError(
                f"--peer_python={python}: {lines[-1] if lines else 'failed'}; "
                "pip install numpy vapoursynth vapoursynth-mvtools vapoursynth-zsmooth"
            )
        cleaned = np.frombuffer(done.stdout, np.uint8).reshape(planes.shape)
        seconds += float(done.stderr.split()[-1])
        count += len(cleaned)
        rows[clip] = score_frames(
            cleaned.transpose(0, 2, 3, 1),
            _frames(track / "output" / clip),
            _frames(track / "mask" / clip, "gray"),
        )
    return rows, round(count / seconds, 2)


def _summary(rows: dict[str, dict[str, float]], known: set[str]) -> dict[str, Any]:
    held_out = [r for c, r in rows.items() if pathlib.PurePath(c).stem not in known]
    summary: dict[str, Any] = {"mean": _mean(list(rows.values()))}
    summary["mean"]["worst of all"] = round(min(r["worst"] for r in rows.values()), 2)
    if held_out:
        summary["held out"] = _mean(held_out)
    summary["clips"] = {
        pathlib.PurePath(c).stem: {k: round(v, 2) for k, v in r.items()}
        for c, r in rows.items()
    }
    return summary

"""SpotLess, what hobbyists clean films with, for `benchmark film --peer_python`.

    pip install numpy vapoursynth vapoursynth-mvtools vapoursynth-zsmooth
    python film_peer.py FRAMES HEIGHT WIDTH < planes > planes

It runs alone in another Python, 3.12 or newer, where VapourSynth's wheels are. Frames
come and go as planar RGB of 8 bits. The settings are those of the script as it is
passed around: the neighbours, motion compensated by blocks of 8×8, and the median of
three. The seconds it took go to the standard error.
"""

import sys
import time

import numpy as np
import vapoursynth as vs


def spotless(clip: "vs.VideoNode") -> "vs.VideoNode":
    """Returns a YUV clip without what lies on one frame alone."""
    seen = clip.mv.Super(pel=2, sharp=2)
    neighbours = [
        clip.mv.Compensate(
            seen,
            seen.mv.Analyse(isb=backward, delta=1, blksize=8, overlap=4, search=5),
            thsad=10_000,
        )
        for backward in (False, True)
    ]
    three = vs.core.std.Interleave([neighbours[0], clip, neighbours[1]])
    return three.zsmooth.TemporalMedian(radius=1).std.SelectEvery(3, [1])


def main(count: int, height: int, width: int) -> None:
    """Reads frames, cleans them and writes them."""
    shape = (count, 3, height, width)
    frames = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(shape)
    blank = vs.core.std.BlankClip(
        format=vs.RGB24, width=width, height=height, length=count, keep=True
    )

    def put(n: int, f: "vs.VideoFrame") -> "vs.VideoFrame":
        filled = f.copy()
        for plane in range(3):
            np.asarray(filled[plane])[:] = frames[n, plane]
        return filled

    source = vs.core.std.ModifyFrame(blank, blank, put)
    clean = spotless(source.resize.Bicubic(format=vs.YUV444P8, matrix_s="709"))
    shown = clean.resize.Bicubic(format=vs.RGB24, matrix_in_s="709")
    start = time.monotonic()
    cleaned = [np.stack([np.asarray(p) for p in frame]) for frame in shown.frames()]
    print(time.monotonic() - start, file=sys.stderr)
    sys.stdout.buffer.write(np.stack(cleaned).tobytes())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Small films with all that a film may have, made with PyAV."""

import fractions

import av
import cv2
import numpy as np

SIZE = (96, 128)


def moving(count=12, size=SIZE, seed=0, speed=2):
    """A soft texture that moves to the left: uint8 (height, width, 3) frames."""
    rng = np.random.default_rng(seed)
    wide = size[1] + speed * count
    base = rng.integers(0, 255, (size[0], wide, 3), dtype=np.uint8)
    base = cv2.normalize(cv2.GaussianBlur(base, (0, 0), 4), None, 40, 215, 32)
    return [
        np.ascontiguousarray(base[:, speed * i : speed * i + size[1]])
        for i in range(count)
    ]


def dirty(frames, seed=1, spots=3):
    """Frames with white and black spots of their own, and the masks of these."""
    rng = np.random.default_rng(seed)
    results, masks = [], []
    for frame in frames:
        frame, mask = frame.copy(), np.zeros(frame.shape[:2], bool)
        for _ in range(spots):
            y = int(rng.integers(8, frame.shape[0] - 16))
            x = int(rng.integers(8, frame.shape[1] - 16))
            high, wide = rng.integers(3, 9, 2)
            frame[y : y + high, x : x + wide] = rng.choice([5, 250])
            mask[y : y + high, x : x + wide] = True
        results.append(frame)
        masks.append(mask)
    return results, masks


def write(
    path,
    frames,
    *,
    codec="ffv1",
    pixels="bgr0",
    unit=fractions.Fraction(1, 1000),
    times=None,
    rotation=0,
    sound="",
    chapters=False,
    aspect=None,
    subtitles=False,
    interlaced=False,
    colors=True,
    options=None,
):
    """Writes a film; `times` are in units, by default 25 frames a second."""
    step = round(1 / (25 * unit))
    times = times or [step * i for i in range(len(frames))]
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Reel"
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.time_base = stream.time_base = unit
        if aspect:
            context.sample_aspect_ratio = aspect
        if colors:
            context.color_primaries = context.color_trc = context.colorspace = 1
            context.color_range = 1
        if rotation:
            stream.set_display_rotation(rotation)
        audio = words = None
        if sound:
            audio = container.add_stream(sound, rate=48000, layout="stereo")
            audio.metadata["language"] = "fra"
        if subtitles:
            words = container.add_mux_stream("subrip")
            words.time_base = fractions.Fraction(1, 1000)
            words.metadata["language"] = "deu"
        if chapters:
            second = fractions.Fraction(1, 1000)
            container.set_chapters(
                [{"id": 1, "start": 0, "end": 200, "time_base": second,
                  "metadata": {"title": "one"}}]
            )  # fmt: skip
        for picture, time in zip(frames, times, strict=True):
            if pixels.startswith("gray"):
                frame = av.VideoFrame.from_ndarray(picture, format="gray")
            else:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base, frame.duration = time, unit, step
            if colors:
                frame.color_range = frame.color_primaries = 1
                frame.color_trc = frame.colorspace = 1
            container.mux(stream.encode(frame))
        if audio is not None:
            noise = np.random.default_rng(0).normal(0, 0.1, (2, 24000))
            form = audio.codec_context.format.name
            size = audio.codec_context.frame_size or 1024
            for start in range(0, noise.shape[1] - size, size):
                part = noise[:, start : start + size].astype(np.float32)
                if form == "s16":
                    part = np.int16(part * 32767).T.reshape(1, -1)
                piece = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(part), format=form, layout="stereo"
                )
                piece.sample_rate, piece.pts = 48000, start
                piece.time_base = fractions.Fraction(1, 48000)
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
        if words is not None:
            packet = av.Packet(b"Where is he?")
            packet.stream, packet.pts, packet.dts, packet.duration = words, 40, 40, 120
            packet.time_base = words.time_base
            container.mux(packet)
        container.mux(stream.encode())
    return path


def decoded(path, form="rgb24"):
    """All frames of a film."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format=form) for f in container.decode(video=0)]


def properties(path):
    """What ffprobe would tell of a film but for its pixels and its codec."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        context = stream.codec_context
        frames = list(container.decode(stream))
        chapters = [(c["start"] * c["time_base"], c["end"] * c["time_base"],
                     c["metadata"]) for c in container.chapters()]  # fmt: skip
        found = {
            "size": (context.width, context.height),
            "pixels": context.pix_fmt,
            "rate": stream.average_rate,
            "aspect": stream.sample_aspect_ratio,
            "colors": (context.color_range, context.color_primaries,
                       context.color_trc, context.colorspace),
            "times": [float(frame.pts * frame.time_base) for frame in frames],
            "rotation": frames[0].rotation,
            "title": container.metadata.get("title"),
            "chapters": chapters,
            "tracks": [(s.type, s.language) for s in container.streams
                       if s.type in ("video", "audio", "subtitle")],
        }  # fmt: skip
    with av.open(str(path)) as container:
        others = [s for s in container.streams if s.type in ("audio", "subtitle")]
        packets = [[] for _ in others]
        if others:
            for packet in container.demux(others):
                if packet.size:
                    packets[others.index(packet.stream)].append(bytes(packet))
        found["packets"] = packets
    return found

"""Writing on clean pictures, so that a network does not take letters for dirt.

Photographs of today bear next to none, while old prints have captions, numbers of
plates and names of studios, small and of high contrast, as scratches and dust are.
"""

import pathlib
import string

import numpy as np
from etils import epy
from PIL import Image, ImageDraw, ImageFont

with epy.lazy_imports():  # not needed where nothing is written
    import matplotlib

# Those that matplotlib brings: of print, of typewriters, upright and slanted.
_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral",
    "STIXGeneralBol", "STIXGeneralItalic",
)  # fmt: skip

# Heights of the letters, pixels, and captions on one piece.
_HEIGHTS, _CAPTIONS = (8, 48), 3

# Shares of captions that stand on paper of their own, and along the other side.
_ON_PAPER, _UPRIGHT = 0.3, 0.15

# Degrees by which a line may slope.
_SLOPE = 4.0


def _line(rng: np.random.Generator) -> str:
    """Returns some words of random letters, or a number, as a caption might have."""
    if rng.random() < 0.25:
        return str(rng.integers(1, 10_000))
    words = (
        "".join(rng.choice(list(string.ascii_lowercase), rng.integers(2, 10)))
        for _ in range(rng.integers(1, 5))
    )
    line = " ".join(words) + rng.choice(["", ".", ",", ":"])
    return rng.choice([line, line.title(), line.upper()])


def _font(rng: np.random.Generator, height: int) -> ImageFont.FreeTypeFont:
    folder = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(folder / f"{rng.choice(_FONTS)}.ttf", height)


def _caption(rng: np.random.Generator) -> Image.Image:
    """Returns lines of writing: RGBA, alpha is the ink, or its paper too."""
    low, high = np.log(_HEIGHTS)
    height = round(float(np.exp(rng.uniform(low, high))))
    font = _font(rng, height)
    text = "\n".join(_line(rng) for _ in range(rng.integers(1, 4)))
    box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font)
    edge = height // 3
    size = (round(box[2] - box[0]) + 2 * edge, round(box[3] - box[1]) + 2 * edge)
    # Ink is light or dark, now and then of a color; paper is the other.
    ink = rng.integers(0, 90, 3) if rng.random() < 0.3 else rng.integers(0, 90, 1)
    colors = [ink, 255 - rng.integers(0, 60, 1)]
    rng.shuffle(colors)
    ink, paper = (tuple(int(v) for v in np.broadcast_to(c, 3)) for c in colors)
    alpha = round(255 * rng.uniform(0.7, 1.0))
    image = Image.new("RGBA", size, (*paper, 255 if rng.random() < _ON_PAPER else 0))
    corner = (edge - box[0], edge - box[1])
    layer = Image.new("L", size, 0)
    ImageDraw.Draw(layer).multiline_text(corner, text, alpha, font)
    image.paste((*ink, 255), (0, 0), layer)
    angle = rng.uniform(-_SLOPE, _SLOPE) + (90 if rng.random() < _UPRIGHT else 0)
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True)


def write_on(pieces: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draws captions on a share of the pieces.

    Args:
      pieces: uint8 (pieces, height, width, 3).
      share: of them that bear writing, 0 to 1.
      seed: of which, what and where.

    Returns:
      The pieces, of the same shape; those without writing are as they were.
    """
    rng = np.random.default_rng(seed)
    written = pieces.copy()
    for index in np.flatnonzero(rng.random(len(pieces)) < share):
        image = Image.fromarray(pieces[index])
        for _ in range(rng.integers(1, _CAPTIONS + 1)):
            caption = _caption(rng)
            # Partly outside, too, as a crop leaves it.
            left, top = (
                int(rng.integers(-length // 2, max(1, room - length // 2)))
                for length, room in zip(caption.size, image.size, strict=True)
            )
            image.paste(caption, (left, top), caption)
        written[index] = np.asarray(image)
    return written

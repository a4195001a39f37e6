"""Options of pairs that are drawn: a crop of a clean picture, and damage on it."""

import dataclasses

from restoration.base import config, errors


def _share(default: float, text: str) -> float:
    return config.option(default, help=text, minimum=0.0, maximum=1.0, later=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """How training pairs are drawn from clean pictures; see `drawn_pairs.Recipe`."""

    clean: str = config.option(
        "",
        help="folder of clean pictures (or a .zip that experiments.pretrain packs): "
        "pairs are drawn from it anew each step, in place of --data_dir",
        later=True,
        free=True,
    )
    overlays: str = config.option(
        "",
        help="with --clean: folder of scanned dirt (RGBA, alpha is the mask)",
        later=True,
        free=True,
    )
    overlay_share: float = _share(0.5, "share of the drawn pairs with scanned dirt")
    piece_size: int = config.option(
        320,
        help="side of the pieces that crops are taken from, pixels",
        minimum=32,
        maximum=1 << 14,
        later=True,
    )
    severity: float = config.option(
        2.0,
        help="the greatest; drawn from 0 up",
        minimum=0.0,
        maximum=8.0,
        later=True,
    )
    severity_rise: float = _share(
        0.0, "share of the steps over which the greatest severity rises"
    )
    leave_out: str = config.option(
        "", help="kinds of damage not to draw, with commas between", later=True
    )
    photo_share: float = _share(0.5, "share of pairs damaged as prints, not film")
    clean_share: float = _share(0.08, "share of pairs that stay clean")
    spotless_share: float = _share(
        0.25, "share of pairs with grain, blur and JPEG, on which nothing landed"
    )
    writing_share: float = _share(0.1, "share of the pieces with captions drawn on")
    grey_share: float = _share(0.1, "share of pairs that are grey")
    toned_share: float = _share(
        0.3, "share of pairs whose target is pale or tinted too, as old prints are"
    )
    soft_share: float = _share(
        0.5, "share of pairs blurred alike on both sides, as a soft scan of film is"
    )
    opacity: float = config.option(
        1.0,
        help="what covers a pair is up to so many times as opaque, drawn from 1 up",
        minimum=1.0,
        maximum=8.0,
        later=True,
    )
    held_out: float = config.option(
        0.06,
        help="share of the clean pictures kept for validation",
        minimum=0.0,
        maximum=0.5,
        later=True,
    )


def check(options: DrawConfig, *, image_size: int, data_dir: str) -> None:
    """Checks that the options of drawing fit those of a run.

    Args:
      options: of drawing.
      image_size: side of the training crops.
      data_dir: folder of pairs of the run; "" for none.

    Raises:
      InputError: for both kinds of data, for crops larger than the pieces, and for
        options of drawing where nothing is drawn.
    """
    if not options.clean:
        for field in dataclasses.fields(DrawConfig):
            if getattr(options, field.name) != field.default:
                raise errors.InputError(f"--{field.name}: only together with --clean")
        return
    if data_dir:
        raise errors.InputError("--clean: not together with --data_dir; choose one")
    if image_size > options.piece_size:
        raise errors.InputError(
            f"--image_size={image_size}: larger than --piece_size={options.piece_size}"
        )

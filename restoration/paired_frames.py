"""TFDS builder `paired_frames` over a paired folder.

    python -m restoration.prepare --data_dir=frames --out=prepared
    tfds build restoration/paired_frames.py --manual_dir=frames --data_dir=prepared

then `tfds.load("paired_frames", data_dir="prepared")`. Splits, order and names are
those of `pairs.find_splits`. Where Apache Beam is installed the records are made in
a Beam pipeline, elsewhere in this process.
"""

import dataclasses
import importlib.util
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from restoration import pairs

_DESCRIPTION = """\
Pairs of frames for restoration: `input` is worn, `output` clean, 8-bit RGB of the
same size, pixels as the files hold them (no orientation applied, transparency
dropped). `name` is the path below `input/` without suffix, `clip` the shot it
belongs to; clips are not divided between splits. Records are in the order of the
names, not shuffled. What the pictures show, and under which licence, is for the
owner of the folder to say.
"""


@dataclasses.dataclass
class PairedFramesConfig(tfds.core.BuilderConfig):
    """How pixels are stored.

    Attributes:
      encoding: "raw" (uint8 as it is: fastest to read) or "files" (the bytes of
        the files, nothing encoded anew: smallest).
    """

    encoding: str = "raw"


def _example(
    encoding: str, pair: pairs.Pair, worn: np.ndarray, clean: np.ndarray
) -> dict[str, Any]:
    own_bytes = encoding == "files"
    return {
        "input": io.BytesIO(pair.input.read_bytes()) if own_bytes else worn,
        "output": io.BytesIO(pair.output.read_bytes()) if own_bytes else clean,
        "name": pair.name.encode("utf-8", "surrogateescape"),
        "clip": pair.clip.encode("utf-8", "surrogateescape"),
    }


class PairedFrames(tfds.core.GeneratorBasedBuilder):
    """A paired folder as a TFDS dataset; `manual_dir` is the folder."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First form."}  # noqa: RUF012
    BUILDER_CONFIGS = [  # noqa: RUF012
        PairedFramesConfig(name="raw", encoding="raw", description="uint8 as it is"),
        PairedFramesConfig(
            name="files", encoding="files", description="the files' own bytes"
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Give a paired folder as manual_dir: input/ (worn) and output/ (clean) with the
    same names, or train/, validation/ and test/ with these two in each.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        """Returns features and metadata."""
        shape = (None, None, 3)
        if self.builder_config.encoding == "files":
            image = tfds.features.Image(shape=shape)
        else:
            image = tfds.features.Tensor(
                shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
            )
        return self.dataset_info_from_configs(
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "input": image,
                    "output": image,
                    "name": tfds.features.Text(),
                    "clip": tfds.features.Text(),
                }
            ),
            supervised_keys=("input", "output"),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        """Returns the examples of each split that has any."""
        folder = os.fspath(dl_manager.manual_dir)
        splits = pairs.find_splits(folder)
        # Whoever reads the records knows from here what lies where.
        self.info.metadata.update(
            fingerprint=pairs.fingerprint(splits),
            names={split: [p.name for p in splits[split]] for split in splits},
            clips={split: [p.clip for p in splits[split]] for split in splits},
        )
        return {
            split: self._generate_examples(folder, split, members)
            for split, members in splits.items()
            if members
        }

    def _generate_examples(
        self, folder: str, split: str, members: tuple[pairs.Pair, ...]
    ) -> Any:
        """Yields (place in the split, example), or does so on Beam's workers."""
        encoding = self.builder_config.encoding
        if importlib.util.find_spec("apache_beam"):
            return _beam_examples(encoding, folder, split)
        return _examples(encoding, split, members)


def _examples(
    encoding: str, split: str, members: tuple[pairs.Pair, ...]
) -> Iterator[tuple[int, dict]]:
    reading = pairs.read_ahead(members)
    bar = tqdm.tqdm(reading, total=len(members), unit="pair", desc=split)
    for place, (pair, worn, clean) in enumerate(bar):
        yield place, _example(encoding, pair, worn, clean)


def _beam_examples(encoding: str, folder: str, split: str) -> Any:
    """Returns a Beam transform that yields what `_generate_examples` does.

    The folder is listed by a worker: a list of millions of names would outgrow what
    runners take as the description of a pipeline.
    """
    beam = tfds.core.lazy_imports.apache_beam

    def listed(folder: str) -> Iterator[tuple[int, pairs.Pair]]:
        yield from enumerate(pairs.find_splits(folder)[split])

    def example(numbered: tuple[int, pairs.Pair]) -> tuple[int, dict]:
        place, pair = numbered
        return place, _example(encoding, pair, *pairs.read(pair))

    return (
        beam.Create([folder])
        | beam.FlatMap(listed)
        | beam.Reshuffle()
        | beam.Map(example)
    )

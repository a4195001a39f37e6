"""TFDS builder `paired_frames` over a paired folder.

    python -m restoration.prepare --data_dir=frames --out=prepared
    tfds build restoration/data/paired_frames.py --manual_dir=frames --data_dir=prepared

then `tfds.load("paired_frames", data_dir="prepared")`. Splits, order and names are
those of `pairs.find_splits`. Records are written shard by shard, so memory holds one
shard; with a Beam runner each shard is a task of its own.
"""

import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from restoration.data import pairs
from restoration.images import frames

# Pixels of the pairs that a shard holds. TFDS keeps the shard being written in memory.
_SHARD_BYTES = 256 * 2**20

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
    encoding: str, pair: pairs.Pair, degraded: np.ndarray, clean: np.ndarray
) -> dict[str, Any]:
    own_bytes = encoding == "files"
    return {
        "input": io.BytesIO(pair.input.read_bytes()) if own_bytes else degraded,
        "output": io.BytesIO(pair.output.read_bytes()) if own_bytes else clean,
        "name": pair.name.encode("utf-8", "surrogateescape"),
        "clip": pair.clip.encode("utf-8", "surrogateescape"),
    }


class PairedFrames(tfds.core.ShardBasedBuilder):
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

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        """Returns the examples of each shard of each split that has any."""
        folder = os.fspath(dl_manager.manual_dir)
        splits = pairs.find_splits(folder)
        fingerprint = pairs.fingerprint(splits)
        # Whoever reads the records knows from here what lies where.
        self.info.metadata.update(
            fingerprint=fingerprint,
            names={split: [p.name for p in splits[split]] for split in splits},
            clips={split: [p.clip for p in splits[split]] for split in splits},
        )
        encoding = self.builder_config.encoding
        return {
            split: [
                functools.partial(
                    _examples, encoding, folder, fingerprint, split, place, count
                )
                for place in range(0, len(members), count)
            ]
            for split, members in splits.items()
            if members
            for count in [_pairs_a_shard(members)]
        }


def _pairs_a_shard(members: Sequence[pairs.Pair]) -> int:
    """Returns how many pairs as large as the first one fill a shard."""
    height, width = frames.size(members[0].input)
    return max(1, _SHARD_BYTES // (2 * 3 * height * width))


@functools.lru_cache(maxsize=1)
def _listed(folder: str, fingerprint: str) -> dict[str, tuple[pairs.Pair, ...]]:
    """Lists the folder once in each process that writes shards of it."""
    del fingerprint  # of another state of the folder there is another list
    return pairs.find_splits(folder)


def _examples(
    encoding: str, folder: str, fingerprint: str, split: str, place: int, count: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (place in the split, example) of one shard."""
    members = _listed(folder, fingerprint)[split]
    chosen = members[place : place + count]
    shards = -(-len(members) // count)
    bar = tqdm.tqdm(
        pairs.read_ahead(chosen),
        total=len(chosen),
        unit="pair",
        desc=f"{split}, shard {place // count + 1} of {shards}",
        leave=False,
    )
    for number, (pair, degraded, clean) in enumerate(bar, start=place):
        yield number, _example(encoding, pair, degraded, clean)

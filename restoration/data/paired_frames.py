"""TFDS builder `paired_frames` over a paired folder.

    python -m restoration.prepare --data_dir=frames --out=prepared
    tfds build restoration/data/paired_frames.py --manual_dir=frames --data_dir=prepared

then `tfds.load("paired_frames", data_dir="prepared")`. Splits, order and names are
those of `pairs.find_splits`. Records are written shard by shard, so that memory holds
only one shard. With a Beam runner, each shard is a task of its own.
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

# Bytes of pixels in a shard. TFDS keeps the shard that it writes in memory.
_SHARD_BYTES = 256 * 2**20

_DESCRIPTION = """\
Pairs of frames for restoration: `input` is degraded, `output` is the clean target,
8-bit RGB of the same size, with the pixels of the files (no orientation applied,
transparency dropped). `name` is the path below `input/` without suffix, `clip` the
shot; all frames of a clip are in the same split. Records are in the order of the names,
not shuffled. Ask the owner of the folder about the content and its licence.
"""


@dataclasses.dataclass
class PairedFramesConfig(tfds.core.BuilderConfig):
    """How pixels are stored.

    Attributes:
      encoding: "raw" (uint8 pixels, fastest to read) or "files" (the bytes of the
        image files, smallest).
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
        PairedFramesConfig(name="raw", encoding="raw", description="uint8 pixels"),
        PairedFramesConfig(
            name="files", encoding="files", description="bytes of the image files"
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Give a paired folder as manual_dir: input/ (degraded) and output/ (clean) with the
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
        """Returns for each split that is not empty an iterator per shard."""
        folder = os.fspath(dl_manager.manual_dir)
        splits = pairs.find_splits(folder)
        fingerprint = pairs.fingerprint(splits)
        # `records` finds a pair's record by these lists.
        self.info.metadata.update(
            fingerprint=fingerprint,
            names={split: [p.name for p in splits[split]] for split in splits},
            clips={split: [p.clip for p in splits[split]] for split in splits},
        )
        encoding = self.builder_config.encoding
        return {
            split: [
                functools.partial(
                    _examples, encoding, folder, fingerprint, split, start, count
                )
                for start in range(0, len(members), count)
            ]
            for split, members in splits.items()
            if members
            for count in [_pairs_per_shard(members)]
        }


def _pairs_per_shard(members: Sequence[pairs.Pair]) -> int:
    """Returns the number of pairs in a shard, judged by the size of the first pair."""
    height, width = frames.size(members[0].input)
    return max(1, _SHARD_BYTES // (2 * 3 * height * width))


@functools.lru_cache(maxsize=1)
def _listed(folder: str, fingerprint: str) -> dict[str, tuple[pairs.Pair, ...]]:
    """Lists the folder, once in each process that writes shards of it."""
    del fingerprint  # part of the cache's key: a changed folder is listed again
    return pairs.find_splits(folder)


def _examples(
    encoding: str, folder: str, fingerprint: str, split: str, start: int, count: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (index in the split, example) for each pair of one shard."""
    members = _listed(folder, fingerprint)[split]
    chosen = members[start : start + count]
    shards = -(-len(members) // count)
    bar = tqdm.tqdm(
        pairs.read_ahead(chosen),
        total=len(chosen),
        unit="pair",
        desc=f"{split}, shard {start // count + 1} of {shards}",
        leave=False,
    )
    for number, (pair, degraded, clean) in enumerate(bar, start=start):
        yield number, _example(encoding, pair, degraded, clean)

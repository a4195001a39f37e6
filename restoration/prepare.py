"""Turns a paired folder into a dataset that is fast to read.

    python -m restoration.prepare --data_dir=frames --out=prepared

writes the TFDS dataset `paired_frames` as TFRecord files. `--format=array_record`
writes ArrayRecord files, `--format=npy` memory-mapped arrays that need no TensorFlow.
Training, evaluation and reports take `--data_dir=prepared` instead of the folder, with
the same results. `--beam` makes the records in an Apache Beam pipeline.
"""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import tqdm
from etils import epy

from restoration.base import cli, config, errors, files
from restoration.data import pairs, sources

with epy.lazy_imports():
    import tensorflow_datasets as tfds

    from restoration.data import array_files, input_pipeline, paired_frames, records


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """Options of `python -m restoration.prepare`."""

    data_dir: str = config.option(
        help="paired folder: input/ and output/, split or not"
    )
    out: str = config.option(help="folder for the prepared dataset", short="o")
    format: str = config.option(
        "tfrecord",
        help="npy: uint8 arrays for images of one size, read without TensorFlow",
        choices=("tfrecord", "array_record", "npy"),
    )
    encoding: str = config.option(
        "raw",
        help="raw: pixels, fastest to read; files: bytes of the image files, smallest",
        choices=("raw", "files"),
    )
    beam: str = config.option(
        "", help='make records with Apache Beam; its options: "--runner=DirectRunner"'
    )
    overwrite: bool = config.option(
        False, help="replace a dataset prepared from other files"
    )

    def __post_init__(self):
        """Checks the choices, and that they fit together."""
        config.check(self)
        if self.format == "npy" and self.encoding != "raw":
            raise errors.InputError("--format=npy stores pixels: drop --encoding")
        if self.beam and self.format == "npy":
            raise errors.InputError("--beam makes records: drop it or --format=npy")
        if self.beam and not importlib.util.find_spec("apache_beam"):
            raise errors.InputError(
                "--beam: Apache Beam is not installed; in an environment of its own: "
                'pip install ".[beam]"'
            )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared dataset.

    Attributes:
      folder: that contains it.
      counts: number of pairs of each split.
      new: False if it existed already, prepared from the same files.
    """

    folder: pathlib.Path
    counts: dict[str, int]
    new: bool


def target_folder(options: PrepareOptions) -> pathlib.Path:
    """Returns the folder of `dataset_info.json` or `index.json`."""
    if options.format == "npy":
        return pathlib.Path(options.out, "arrays")
    return pathlib.Path(options.out, "paired_frames", options.encoding, "1.0.0")


def _fingerprint(folder: pathlib.Path) -> str:
    """Returns the fingerprint of the files that a dataset was prepared from."""
    if (folder / array_files.INDEX).is_file():
        return array_files.open_arrays(folder).fingerprint
    return records.open_dataset(folder).info.metadata["fingerprint"]


def _remove_leftovers(target: pathlib.Path) -> None:
    """Removes unfinished datasets of interrupted runs."""
    for pattern in (f"incomplete.*_{target.name}", f".{target.name}.incomplete"):
        for path in target.parent.glob(pattern):
            shutil.rmtree(path)


@contextlib.contextmanager
def _replacing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder that replaces `target` if all goes well."""
    fresh = target.with_name(f".{target.name}.incomplete")
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write_arrays(
    target: pathlib.Path, splits: dict[str, tuple[pairs.Pair, ...]]
) -> None:
    total = sum(map(len, splits.values()))
    with (
        _replacing(target) as folder,
        tqdm.tqdm(total=total, unit="pair", desc="prepare") as bar,
    ):
        array_files.write(folder, splits, bar.update)


def _write_records(options: PrepareOptions) -> None:
    tf = input_pipeline.tensorflow()
    # TFDS's bars print whole paths; the builder shows its own for each shard.
    tfds.disable_progress_bar()
    download = tfds.download.DownloadConfig(
        manual_dir=os.path.abspath(options.data_dir),
        download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS,
    )
    if options.beam:
        from apache_beam.options import pipeline_options

        beam_options = pipeline_options.PipelineOptions(shlex.split(options.beam))
        runner = beam_options.view_as(pipeline_options.StandardOptions).runner
        download = dataclasses.replace(
            download, beam_options=beam_options, beam_runner=runner or "DirectRunner"
        )
    builder = paired_frames.PairedFrames(
        data_dir=options.out, config=options.encoding, file_format=options.format
    )
    # TFDS needs a folder for downloads, although there are none.
    with tempfile.TemporaryDirectory() as downloads:
        try:
            builder.download_and_prepare(
                download_dir=downloads, download_config=download
            )
        except Exception as error:
            # TFDS and Beam wrap errors in their own.
            for cause in _causes(error):
                if isinstance(cause, errors.InputError | OSError):
                    raise cause from None
                # ArrayRecord's writer raises only RuntimeError.
                if isinstance(cause, tf.errors.OpError) or "write() failed" in str(
                    cause
                ):
                    raise OSError(str(cause)[:200]) from None
            raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explain(error: OSError, out: str) -> errors.InputError:
    reason = error.strerror or str(error)
    return errors.InputError(
        f"{out}: cannot be written ({reason}); the frames are unchanged; make room or "
        "choose another --out, and run the same command again"
    )


def prepare(options: PrepareOptions) -> Prepared:
    """Prepares a paired folder.

    A killed run starts over. A finished dataset of the same files is kept.

    Args:
      options: from the command line.

    Returns:
      The dataset.

    Raises:
      InputError: if the folder has no pairs, a pair cannot be used, the disk is full,
        or the output folder contains another dataset.
    """
    source = pathlib.Path(options.data_dir).resolve()
    if pathlib.Path(options.out).resolve() == source:
        raise errors.InputError(
            f"--out={options.out}: choose a folder other than the data"
        )
    splits = pairs.find_splits(options.data_dir)
    counts = {split: len(members) for split, members in splits.items()}
    target = target_folder(options)
    if target.exists() and not options.overwrite:
        same = _fingerprint(target) == pairs.fingerprint(splits)
        if same and _format(target) == options.format:
            return Prepared(target, counts, new=False)
        difference = f"as {_format(target)}" if same else "from other files"
        raise errors.InputError(
            f"{target}: contains a dataset prepared {difference}; --overwrite replaces "
            "it"
        )
    try:
        _remove_leftovers(target)
        if options.format == "npy":
            _write_arrays(target, splits)
        else:
            _write_records(options)
    except OSError as error:
        raise _explain(error, options.out) from None
    sources.open_source(target)
    files.write_text(target / "README.md", dataset_card(options, splits, target))
    return Prepared(target, counts, new=True)


def dataset_card(
    options: PrepareOptions,
    splits: Mapping[str, Sequence[pairs.Pair]],
    folder: pathlib.Path,
) -> str:
    """Returns the README of a prepared dataset, as Markdown.

    Args:
      options: of its preparation.
      splits: its pairs.
      folder: that contains it.

    Returns:
      The text.
    """
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    rows = "\n".join(
        f"| {split} | {len(members):,} | {len({pair.clip for pair in members}):,} |"
        for split, members in splits.items()
    )
    stored = (
        "bytes of the image files" if options.encoding == "files" else "uint8 pixels"
    )
    name = pathlib.Path(options.data_dir).resolve().name
    return f"""# Paired frames: {name}

Degraded frames (`input`) and their clean targets (`output`), 8-bit RGB, both frames of
a pair of the same size, with `name` and `clip`. Stored as {options.format}, {stored},
{size / 1e9:.3f} GB.

| split | pairs | clips |
|---|--:|--:|
{rows}

Records are ordered by name, not shuffled. All frames of a clip are in the same split,
unless there are fewer than three clips. Pixels are those of the files: no orientation
or color profile was applied, transparency was dropped, and more than 8 bits were
rounded.

Prepared from files with the fingerprint `{_fingerprint(folder)}`
(SHA-256 of names, sizes and times of change).
Add a description of the images and their licence before you pass the dataset on.
"""


def _format(folder: pathlib.Path) -> str:
    if (folder / array_files.INDEX).is_file():
        return "npy"
    return records.open_dataset(folder).info.file_format.value


def main(options: PrepareOptions) -> None:
    """Entry point."""
    done = prepare(options)
    counts = ", ".join(f"{split} {count}" for split, count in done.counts.items())
    state = "" if done.new else " already, from the same files"
    print(f"{done.folder}: prepared{state} ({counts})")


if __name__ == "__main__":
    cli.run(main, PrepareOptions)

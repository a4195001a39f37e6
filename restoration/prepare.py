"""Turns a paired folder into a dataset that is fast to read.

    python -m restoration.prepare --data_dir=frames --out=prepared

writes the TFDS dataset `paired_frames` as TFRecord; `--format=array_record` as
ArrayRecord, `--format=npy` memory-mapped arrays that need no TensorFlow. Training,
evaluation and reports take `--data_dir=prepared` like the folder, with the same
result. With `--beam` the records are made in an Apache Beam pipeline.
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
        help="npy: uint8 arrays of one size, read without TensorFlow",
        choices=("tfrecord", "array_record", "npy"),
    )
    encoding: str = config.option(
        "raw",
        help="raw: pixels, fastest to read; files: the files' own bytes, smallest",
        choices=("raw", "files"),
    )
    beam: str = config.option(
        "", help='make records with Apache Beam; its options: "--runner=DirectRunner"'
    )
    overwrite: bool = config.option(
        False, help="replace a dataset prepared from other files"
    )

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        if self.format == "npy" and self.encoding != "raw":
            raise errors.InputError("--format=npy holds pixels: drop --encoding")
        if self.beam and self.format == "npy":
            raise errors.InputError("--beam makes records: drop it or --format=npy")
        if self.beam and not importlib.util.find_spec("apache_beam"):
            raise errors.InputError(
                "--beam: Apache Beam is not installed; in an environment of its own: "
                'pip install ".[beam]"'
            )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What was prepared.

    Attributes:
      folder: where the dataset lies.
      counts: pairs of each split.
      new: False when it was there already, made from the same files.
    """

    folder: pathlib.Path
    counts: dict[str, int]
    new: bool


def target_folder(options: PrepareOptions) -> pathlib.Path:
    """Returns the folder that will hold `dataset_info.json` or `index.json`."""
    if options.format == "npy":
        return pathlib.Path(options.out, "arrays")
    return pathlib.Path(options.out, "paired_frames", options.encoding, "1.0.0")


def _fingerprint(folder: pathlib.Path) -> str:
    """Returns the fingerprint of the files that a dataset was made from."""
    if (folder / array_files.INDEX).is_file():
        return array_files.open_arrays(folder).fingerprint
    return records.open_dataset(folder).info.metadata["fingerprint"]


def _remove_leftovers(target: pathlib.Path) -> None:
    """Removes what interrupted runs left; nothing in it can be used."""
    for pattern in (f"incomplete.*_{target.name}", f".{target.name}.incomplete"):
        for path in target.parent.glob(pattern):
            shutil.rmtree(path)


@contextlib.contextmanager
def _replacing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a new folder that takes the place of `target` if all goes well."""
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
    # Its own bars print whole paths; the builder shows one for each split.
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
    # TFDS wants a folder for downloads, of which there are none.
    with tempfile.TemporaryDirectory() as downloads:
        try:
            builder.download_and_prepare(
                download_dir=downloads, download_config=download
            )
        except Exception as error:
            # TFDS and Beam wrap what went wrong in errors of their own.
            for cause in _causes(error):
                if isinstance(cause, errors.InputError | OSError):
                    raise cause from None
                # ArrayRecord's writer knows no class of error but RuntimeError.
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
        f"{out}: cannot be written ({reason}); nothing of the frames was touched: make "
        "room or choose another --out, and run the same command again"
    )


def prepare(options: PrepareOptions) -> Prepared:
    """Prepares a paired folder.

    A run that was killed starts over; a dataset that is whole and made from the same
    files is left as it is.

    Args:
      options: what to prepare, and how.

    Returns:
      Where the dataset lies and what it holds.

    Raises:
      InputError: for a folder without pairs, a pair that cannot be used, a full
        disk, or another dataset in the place.
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
        what = f"as {_format(target)}" if same else "from other files"
        raise errors.InputError(
            f"{target}: holds a dataset prepared {what}; --overwrite replaces it"
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
    """Returns what a prepared dataset holds, as Markdown.

    Args:
      options: how it was prepared.
      splits: the pairs that it was prepared from.
      folder: where it lies.

    Returns:
      The card.
    """
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    rows = "\n".join(
        f"| {split} | {len(members):,} | {len({pair.clip for pair in members}):,} |"
        for split, members in splits.items()
    )
    holds = "the files' own bytes" if options.encoding == "files" else "uint8 pixels"
    name = pathlib.Path(options.data_dir).resolve().name
    return f"""# Paired frames: {name}

Worn frames (`input`) and their clean counterparts (`output`), 8-bit RGB, both of a
pair of one size, with `name` and `clip`. Stored as {options.format}, {holds},
{size / 1e9:.3f} GB.

| split | pairs | clips |
|---|--:|--:|
{rows}

The order is that of the names, nothing is shuffled; a clip lies in one split alone
(where there are fewer than three clips, a frame). Pixels are as stored in the files:
no orientation or color profile was applied, transparency was dropped, more than
8 bits were rounded.

Made from files with the fingerprint `{_fingerprint(folder)}`
(SHA-256 of names, sizes and times of change).
What the pictures show, and under which licence they may be used, is not known here:
add it before you pass the dataset on.
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

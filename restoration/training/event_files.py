"""The log of a run as TensorBoard reads it: `tensorboard --logdir RUN`.

The event files hold what `metrics.jsonl` holds, in `tensorboard/train` and
`tensorboard/validation` of the workdir, so that both splits share a chart. They are
written anew whenever the run is started, so that steps that a killed run did twice
stand once.
"""

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from restoration.data import input_pipeline

FOLDER = "tensorboard"

# What a row holds besides the metrics.
_OTHERS = ("step", "epoch", "split")

_SPLITS = ("train", "validation")


@contextlib.contextmanager
def open_writer(
    workdir: pathlib.Path, rows: Iterable[Mapping[str, Any]]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Opens the event files of a run; TensorFlow is imported here.

    Args:
      workdir: the run's folder.
      rows: of the log so far.

    Yields:
      A function that takes a further row of the log; numbers of the splits train and
      validation are written, all else is passed over.
    """
    tf = input_pipeline.tensorflow()
    # As `tf.summary.scalar` does, which is there only where TensorBoard is installed.
    metadata = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR")
    metadata.plugin_data.plugin_name = "scalars"
    folder = workdir / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        writers = {}
        for split in _SPLITS:
            writers[split] = tf.summary.create_file_writer(str(folder / split))
            stack.callback(writers[split].close)

        def write(row: Mapping[str, Any]) -> None:
            if row["split"] not in writers:
                return
            with writers[row["split"]].as_default(step=row["step"]):
                for name, value in row.items():
                    if name not in _OTHERS and isinstance(value, int | float):
                        tf.summary.write(
                            name, tf.constant(value, tf.float32), metadata=metadata
                        )
            writers[row["split"]].flush()

        for row in rows:
            write(row)
        yield write

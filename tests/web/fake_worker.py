"""A worker that copies pictures, or does what their names say."""

import os
import pathlib
import shutil
import signal
import time

from restoration.base import errors
from restoration.images import picture, preview
from restoration.web import worker


def restore(task, device, tell):
    name = pathlib.PurePosixPath(task.name).stem
    tell("starting", 0.0)
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "deaf":  # does not notice that it is cancelled
        time.sleep(600)
    if name == "slow":
        for step in range(3000):
            time.sleep(0.02)
            tell("restoring", (step + 1) / 3001)
    if name == "fails":
        return {"error": f"{task.source}: no good; take another"}
    if name == "refuses":
        raise errors.InputError(f"{task.source}: no good; take another")
    shutil.copyfile(task.source, task.target)
    found = picture.inspect(task.target)
    levels = preview.write_levels(task.target.with_name("after.levels.tif"), found)
    return {"notes": [], "seconds": 0.1, "levels": levels}


def start(device):
    if device == "tpu":
        raise errors.InputError("--device=tpu: not here")
    if device == "gpu":
        os._exit(3)
    return {"models": ["nafnet_s", "basic"], "device": device}


if __name__ == "__main__":
    worker.serve(restore, start)

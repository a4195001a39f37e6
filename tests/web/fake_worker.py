"""A worker that copies pictures and films, or does what their names say."""

import os
import pathlib
import shutil
import signal
import time

from restoration.base import errors
from restoration.film import container
from restoration.images import picture, preview
from restoration.web import films, worker


def restore(task, device, tell):
    name = pathlib.PurePosixPath(task.name).stem
    is_film = container.is_film(task.source.name)
    tell("starting", 0.0)
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "deaf":  # does not notice that it is cancelled
        time.sleep(600)
    if name == "slow":
        for step in range(3000):
            time.sleep(0.02)
            tell("restoring", (step + 1) / 3001, (step + 1, 3001) if is_film else None)
    if name == "fails":
        return {"error": f"{task.source}: no good; take another"}
    if name == "refuses":
        raise errors.InputError(f"{task.source}: no good; take another")
    target, after = task.target, task.target.with_name("after.levels.tif")
    if is_film:
        target = target.with_name(f"{target.name}{task.source.suffix}")
    shutil.copyfile(task.source, target)
    if is_film:
        levels = films.write_levels(after, target)
    else:
        levels = preview.write_levels(after, picture.inspect(target))
    return {"file": target.name, "notes": [], "seconds": 0.1, "levels": levels}


def start(device):
    if device == "tpu":
        raise errors.InputError("--device=tpu: not here")
    if device == "gpu":
        os._exit(3)
    return {"models": ["nafnet_s", "basic"], "device": device, "finds": False}


if __name__ == "__main__":
    worker.serve(restore, start)

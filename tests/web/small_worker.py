"""The page's worker with small tiles, since the pictures of tests are small."""

from restoration.inference import engine
from restoration.web import worker

# In `engine`: the tile of the finder and the filler, which has little more than its
# context, and how large the restoring network's tiles are.
SMALL = {"_TILES": ((448, 448),), "_CORE_TO_CONTEXT": 3}

if __name__ == "__main__":
    for name, value in SMALL.items():
        setattr(engine, name, value)
    worker.serve(worker.restore, worker.make_ready)

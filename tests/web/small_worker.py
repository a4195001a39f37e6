"""The page's worker with small tiles, since the pictures of tests are small."""

from restoration.inference import engine
from restoration.web import worker

# In `engine`: the sides of the finder's and the filler's tiles, of which the first has
# little more than its context, and how large the restoring network's tiles are.
SMALL = {"_TILES": ((448, 448), (928, 928)), "_CORE_TO_CONTEXT": 3}

if __name__ == "__main__":
    for name, value in SMALL.items():
        setattr(engine, name, value)
    worker.serve(worker.restore, worker.make_ready)

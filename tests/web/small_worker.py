"""The page's worker with small tiles, since the pictures of tests are small."""

from restoration.inference import engine
from restoration.web import worker

# Of the finder and of the filler: no tile has less than twice the context, and a core.
SIDES = (448, 928)

if __name__ == "__main__":
    engine._SIDES = SIDES
    worker.serve(worker.restore, worker.make_ready)

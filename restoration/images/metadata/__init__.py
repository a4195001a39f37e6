"""What a picture file holds besides its pixels, copied byte by byte.

Libraries that write pictures rewrite such data and lose some of it: maker notes,
a TIFF file's camera data, comments, texts. Here the blocks of the source file are
put into the written file as they are, so that nothing has to be understood to
be kept. One module a format; each has

* `read(path)`: the blocks that every format knows, as `Blocks`;
* `insert(path, blocks)`: puts them into a file that has none;
* `copy_metadata(source, target, preview, profile=True)`: puts in all that `source`
  has, but for what depends on the old pixels (`dependent`). Of TIFF pages `encode`
  does it.
"""

from restoration.images.metadata import jpeg, png, tiff, webp
from restoration.images.metadata.blocks import Blocks

FORMATS = {"jpeg": jpeg, "png": png, "tiff": tiff, "webp": webp}

__all__ = ["FORMATS", "Blocks"]

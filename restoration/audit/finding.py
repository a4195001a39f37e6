"""What can be wrong with a file of a paired folder."""

import dataclasses

# What can be found: whether it is moved by default, and what it means.
REASONS = {
    "lone": (True, "no partner of the same name on the other side"),
    "undecodable": (True, "Pillow or TensorFlow cannot decode the file"),
    "truncated": (True, "the file ends early"),
    "bomb": (True, "so many pixels that Pillow refuses to decode the file"),
    "size": (True, "the two images of the pair differ in size"),
    "dissimilar": (False, "the two images seem to show different things"),
    "exchanged": (False, "input and output seem to have changed places"),
    "shifted": (False, "the two images are shifted against each other"),
    "identical": (False, "input and output have the same pixels"),
    "leak": (False, "the same picture, or nearly, lies in another split too"),
    "duplicate": (False, "another pair of the split has the same pixels"),
    "near_duplicate": (False, "another clip of the split has nearly the same picture"),
    "blank": (False, "one even color, no picture"),
    "ambiguous": (False, "several files of one folder differ only in the suffix"),
    "similar_name": (False, "names that differ only in case or Unicode form"),
    "extension": (False, "the suffix is that of another format"),
    "format": (False, "training reads PNG, JPEG and BMP, not this format"),
    "animated": (False, "several frames; the first alone is used"),
    "multi_page": (False, "several pages; the first alone is used"),
    "cmyk": (False, "colors for printing (CMYK), converted when read"),
    "16_bit": (False, "more than 8 bits a channel; training uses 8"),
    "transparent": (False, "an alpha channel, dropped when read"),
    "link": (False, "a symbolic link; it is not followed, so not checked"),
    "unreadable": (False, "the file could not be read from disk, so not checked"),
    "not_image": (False, "not named as an image; passed over"),
}


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """Something wrong with a file or a pair.

    Attributes:
      file: path below the data folder, POSIX form; of a pair the input's.
      reason: a key of REASONS.
      detail: what was seen, for people.
      partner: the file that goes where this one goes, or "".
      other: a file of another pair that it is about, or "".
    """

    file: str
    reason: str
    detail: str
    partner: str = ""
    other: str = ""


def shown(name: str) -> str:
    """Returns a file name as valid Unicode; undecodable bytes in hex."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

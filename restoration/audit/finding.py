"""The reasons why a file of a paired folder may be bad."""

import dataclasses

# For each reason: whether files are moved for it by default, and its meaning.
REASONS = {
    "lone": (True, "no file of the same name in the other folder"),
    "undecodable": (True, "Pillow or TensorFlow cannot decode the file"),
    "truncated": (True, "the file ends early"),
    "bomb": (True, "too many pixels, Pillow refuses to decode the file"),
    "size": (True, "the two images of the pair differ in size"),
    "dissimilar": (False, "the two images seem to show different things"),
    "exchanged": (False, "input and output seem to be exchanged"),
    "shifted": (False, "the two images are shifted against each other"),
    "identical": (False, "input and output have the same pixels"),
    "leak": (False, "another split has the same image, or nearly the same"),
    "duplicate": (False, "another pair of the split has the same pixels"),
    "near_duplicate": (False, "another clip of the split has nearly the same image"),
    "blank": (False, "the image has only one color"),
    "ambiguous": (False, "several files of one folder differ only in the suffix"),
    "similar_name": (False, "the names differ only in case or Unicode form"),
    "extension": (False, "the suffix belongs to another format"),
    "format": (False, "training reads PNG, JPEG and BMP, not this format"),
    "animated": (False, "several frames, only the first is used"),
    "multi_page": (False, "several pages, only the first is used"),
    "cmyk": (False, "colors for printing (CMYK), converted when read"),
    "16_bit": (False, "more than 8 bits per channel, training uses 8"),
    "transparent": (False, "an alpha channel, dropped when read"),
    "link": (False, "a symbolic link, not followed and so not checked"),
    "unreadable": (False, "the file cannot be read from disk, so it is not checked"),
    "not_image": (False, "the name is not an image's; the file is ignored"),
}


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """A reason why a file or a pair may be bad.

    Attributes:
      file: path below the data folder, with forward slashes; the input's of a pair.
      reason: a key of REASONS.
      detail: a description for people.
      partner: the file that is moved together with this one, or "".
      other: a file of another pair, for example the copy of a duplicate, or "".
    """

    file: str
    reason: str
    detail: str
    partner: str = ""
    other: str = ""


def shown(name: str) -> str:
    """Returns a file name as valid Unicode; undecodable bytes in hex."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

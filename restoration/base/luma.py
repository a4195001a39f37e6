"""Weights of red, green and blue in luma, the brightness of gamma-encoded RGB."""

# Rec. ITU-R BT.601: JPEG and standard definition.
BT601 = (0.299, 0.587, 0.114)

# Rec. ITU-R BT.709: high definition.
BT709 = (0.2126, 0.7152, 0.0722)

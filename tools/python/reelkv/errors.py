"""What goes wrong while reading."""


class FormatError(ValueError):
    """The bytes are not what schema/FORMAT.md says they must be."""


class ChecksumError(FormatError):
    """The bytes are not the ones that were written."""

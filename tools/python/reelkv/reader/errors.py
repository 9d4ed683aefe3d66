"""What goes wrong while reading."""


class FormatError(ValueError):
    """The bytes are not what schema/FORMAT.md says they must be, or a newer version wrote them."""


class ChecksumError(FormatError):
    """The bytes are not the ones that were written."""


class NotStoredError(LookupError):
    """The store does not hold what was asked for."""


class KeyRequiredError(PermissionError):
    """The tenant is encrypted and its key was not given, or it has another one by now."""


class WrongKeyError(PermissionError):
    """Not the tenant's key."""

import pytest

from .command import Command, find_command


@pytest.fixture(scope="session")
def command() -> Command:
    """The built `reelkv` command."""
    path = find_command()
    if path is None:
        pytest.skip("reelkv is not built: run `swift build -c release --product reelkv`, or set REELKV to the command")
    return Command(path)

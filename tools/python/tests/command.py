"""The `reelkv` command, and what the repository has for tests."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "Tests" / "Fixtures"


def find_command() -> Path | None:
    path = Path(os.environ.get("REELKV") or ROOT / ".build" / "release" / "reelkv")
    return path if path.is_file() else None


class Command:
    def __init__(self, path: Path):
        self.path = path

    def __call__(self, store: Path, *arguments) -> str:
        """Runs a subcommand on a store; its words come first, as on a command line. Returns what it prints."""
        result = subprocess.run([self.path, *map(str, arguments), "--store", store], capture_output=True, text=True)
        assert result.returncode == 0, f"reelkv {' '.join(map(str, arguments))}: {result.stderr}"
        return result.stdout + result.stderr

    def new_store(self, path: Path, spec: Path, *options) -> Path:
        self(path, "init", *options)
        self(path, "model", "add", "model", "--spec", spec)
        return path

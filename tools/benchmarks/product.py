"""ReelKV's own figures, from `reelkv-bench`, which times itself without its start."""

import json
import subprocess
from pathlib import Path

from .rounds import Measurements

# Restored to the type that the model has, and quantized ones to the other of 16 bits too.
OWN_TYPE, OTHER_TYPE = "bf16", "f16"
PROFILES = ("exact", "int4", "kivi-2", "vidkv-2-2", "vidkv-1.5-1.58")
WRITTEN = ("exact", "vidkv-1.5-1.58")
WRITTEN_TOKENS = 8192
LONGER_TOKENS = 16384


def restore_name(profile: str, element_type: str = OWN_TYPE) -> str:
    return f"restore {profile} to {element_type}"


class Bench:
    def __init__(self, path: Path):
        self.path = path

    def run(self, *arguments: object):
        command = [str(self.path), *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"error: {' '.join(command)} failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def measure_round(self, measured: Measurements, tokens: int):
        for element_type, profiles in ((OWN_TYPE, PROFILES), (OTHER_TYPE, PROFILES[1:])):
            selected = [word for profile in profiles for word in ("--profile", profile)]
            for row in self.run("restore", "--tokens", tokens, "--runs", 5, "--type", element_type, *selected):
                self._add_restore(measured, row, "warm")
                ratio = row["memcpy_seconds"] / row["restore_seconds"]
                measured.add(f"{restore_name(row['profile'], element_type)} warm, of memcpy", ratio)
                measured.add("memcpy", row["memcpy_seconds"], row["decoded_bytes"])
        for row in self.run("restore", "--tokens", tokens, "--runs", 3, "--cold", "--profile", "vidkv-1.5-1.58"):
            self._add_restore(measured, row, "cold")
        for profile in WRITTEN:
            row = self.run("write", "--tokens", WRITTEN_TOKENS, "--profile", profile)
            measured.add(f"write {profile}", row["seconds"], row["input_bytes"])

    def _add_restore(self, measured: Measurements, row: dict, state: str):
        name = f"{restore_name(row['profile'], row['element_type'].lower())} {state}"
        measured.add(name, row["restore_seconds"], row["decoded_bytes"])
        measured.add(f"{name}, first layer of the whole", row["first_layer_seconds"] / row["restore_seconds"])

    def measure_once(self, measured: Measurements):
        row = self.run("prefix")
        measured.add("longest prefix, median", row["median_seconds"])
        measured.add("longest prefix, p99", row["p99_seconds"])
        for row in self.run("restore", "--tokens", LONGER_TOKENS, "--runs", 2, "--profile", "exact", "--profile", "vidkv-1.5-1.58"):
            if row.get("private_bytes") is not None:
                measured.add("memory of a restore, bytes", row["private_bytes"])

    def profiles(self, fixtures: list[Path]) -> list[dict]:
        rows = self.run("profiles", *fixtures)
        return [
            {key: row[key] for key in ("file", "name", "bits_per_element", "attention_error", "key_nmse", "value_nmse")}
            for row in rows
        ]

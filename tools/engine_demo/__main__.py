"""Precomputes a clip, and chats about it in two sessions, every turn in a process of its own; a table says what that took."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

CHATS = {
    "alice": ["What is a camera above a street good for?", "And what is it bad for?", "Who should be allowed to see what it sees?"],
    "bob": ["Name three things that move in a street.", "Which of them is the fastest?", "Why is that so?"],
}
COLUMNS = ["turn", "reused", "computed", "first token", "of it restore", "without: vision", "prefill", "of prefill", "stored", "KL"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/demo --engine", description=__doc__)
    parser.add_argument("--clip", type=Path, required=True, help="a video")
    parser.add_argument("--model", type=Path, required=True, help="the folder of a model")
    parser.add_argument("--frames", type=int, default=16, help="of the clip (default: %(default)s)")
    parser.add_argument("--profile", default="vidkv-1.5-1.58", help="how pages are stored (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of each session (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times are medians of so many (default: %(default)s)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="that the model computes with, with the store and without (default: %(default)s: with more, whatever else runs on the machine makes them wait for each other)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Demo(options, Path(folder)).run()


class Demo:
    def __init__(self, options: argparse.Namespace, folder: Path):
        self.options, self.folder, self.store = options, folder, folder / "store"

    def run(self) -> None:
        print(
            "\nThe model is SmolLM2-135M-Instruct behind DINOv2, both as they were trained. The map between them is not trained: the model answers"
            "\nwithout having understood the video. What is shown is what the store does."
        )
        heading("The clip is run through the model once, and its cache stored")
        self.precompute("--profile", self.options.profile)
        heading("Two sessions about it; every turn is a process of its own, which finds the turns before in the store")
        turns: list[dict] = []
        for index in range(self.options.turns):
            for session, questions in CHATS.items():
                turns.append(self.turn(session, questions[index % len(questions)], self.options.profile))
        heading("The same, stored bit for bit: what is left is rounding")
        self.precompute("--profile", "exact", "--tenant", "exact")
        exact = self.turn("witness", CHATS["alice"][0], "exact", "--tenant", "exact")
        threads = "1 thread" if self.options.threads == 1 else f"{self.options.threads} threads"
        heading(f"Seconds on {threads}, medians of {self.options.rounds}; KL in nats a token, mean over the answer")
        print_table([*turns, exact])
        shares = [turn["with_store"]["first_token"] / turn["without"]["prefill"] for turn in turns]
        restores = [turn["with_store"]["restoring"] / turn["with_store"]["first_token"] for turn in turns]
        print(
            f"\nTime to first token with the store: {median(shares):.3f} of the prefill's alone (the worst turn: {max(shares):.3f}); of it,"
            f"\n{100 * median(restores):.0f} % for finding and restoring what is stored. Without the store, the vision encoder comes on top."
            f"\nThe smallest prefix that was restored had {min(turn['reused_tokens'] for turn in turns):,} tokens."
        )

    def precompute(self, *arguments: str) -> None:
        command = [
            "reelkv-precompute", self.options.clip.name, "--model", self.options.model.name, "--frames", str(self.options.frames), "--name", "clip", *arguments,
        ]  # fmt: skip
        print("$", *command)
        command[:1] = [sys.executable, "-m", "reelkv.precompute"]
        command[command.index(self.options.clip.name)] = str(self.options.clip)
        command[command.index(self.options.model.name)] = str(self.options.model)
        self.in_process([*command, "--store", str(self.store)])

    def turn(self, session: str, question: str, profile: str, *arguments: str) -> dict:
        command = [
            sys.executable, "-m", "engine_demo.turn", "--model", self.options.model, "--clip", self.options.clip, "--frames", self.options.frames,
            "--store", self.store, "--history", self.folder / f"{session}.json", "--session", session, "--question", question,
            "--profile", profile, "--rounds", self.options.rounds, *arguments,
        ]  # fmt: skip
        turn = json.loads(self.in_process([str(argument) for argument in command], is_captured=True))
        print(f"{session} (process {turn['process']}): {question}\n  > {' '.join(turn['answer'].split())}", flush=True)
        return turn


    def in_process(self, command: list[str], is_captured: bool = False) -> str:
        settings = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": str(self.options.threads)}
        done = subprocess.run(command, env=os.environ | settings, stdout=subprocess.PIPE if is_captured else None, text=True)
        if done.returncode != 0:
            sys.exit(done.returncode)
        return done.stdout or ""


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def print_table(turns: list[dict]) -> None:
    rows, counts = [], {}
    for turn in turns:
        counts[turn["session"]] = counts.get(turn["session"], 0) + 1
        stored, without = turn["with_store"], turn["without"]
        rows.append(
            [
                f"{turn['session']} {counts[turn['session']]}",
                f"{turn['reused_tokens']:,}",
                f"{turn['computed_tokens']:,}",
                f"{stored['first_token']:.3f}",
                f"{stored['restoring']:.3f} ({100 * stored['restoring'] / stored['first_token']:.0f} %)",
                f"{without['vision']:.2f}",
                f"{without['prefill']:.2f}",
                f"{stored['first_token'] / without['prefill']:.3f}",
                f"{turn['stored_bytes'] / 1e3:,.0f} kB",
                f"{turn['kl']:.4f}",
            ]
        )
    widths = [max(len(row[column]) for row in [COLUMNS, *rows]) for column in range(len(COLUMNS))]
    for row in [COLUMNS, *rows]:
        print("  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))))


if __name__ == "__main__":
    main()

"""python -m reelkv.precompute"""

from .command import run

run()

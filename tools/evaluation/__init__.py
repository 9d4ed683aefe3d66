"""What a profile costs in answers: a real model goes on from restored caches, beside the exact ones. `tools/eval` runs it."""

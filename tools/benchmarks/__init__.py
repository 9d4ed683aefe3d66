"""ReelKV beside its peers: one run, medians, ratios, a table, JSON and plots. `tools/bench` runs it."""

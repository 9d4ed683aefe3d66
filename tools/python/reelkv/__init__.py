"""ReelKV in Python. `reelkv.reader` reads the format without the library."""

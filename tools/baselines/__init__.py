"""Other ways to quantize a KV cache, rendered from their formulas, for benchmarks and evaluations to compare with.

Everything takes and gives `[heads, tokens, dim]` float32 tensors. Bits are those of codes and metadata, without any file around them.
"""

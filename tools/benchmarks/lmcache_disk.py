"""LMCache's local-disk backend beside the other peers: measured where it is asked for, as its needs are many."""

import asyncio
import math
import os
import queue
import shutil
import threading
from contextlib import contextmanager

import numpy as np

from .peers import PAGE_TOKENS, Contender, sync, timed
from .rounds import Measurements

# LMCache writes in threads of its own. One that fails logs nothing and never reports: it is not waited for longer than this.
PATIENCE_SECONDS = 120
# Its pool hands out memory in multiples of this.
POOL_ALIGNMENT = 4096


class LMCacheDisk(Contender):
    """Puts chunks of 256 tokens from LMCache's own memory to its disk backend, and gets them back, without CUDA.

    Nothing is counted but what the backend does: chunks lie in LMCache's layout before a put starts, and a get ends in
    memory of LMCache's pool, from where an engine would copy them. All of the pool has been written to before, so
    neither pays for pages that the system has yet to give.
    """

    def measure_round(self, measured: Measurements):
        name = "LMCache local disk"
        chunks = self._chunks()
        with self._backend(chunks) as (disk, keys, stored):
            put = timed(lambda: self._put(disk, keys, stored))
            files = sorted(self._path.glob("*.pt"))
            if len(files) != len(keys):
                raise RuntimeError(f"LMCache keeps {len(keys)} chunks in {len(files)} files; one file a chunk is expected")
            synced = timed(lambda: [sync(file) for file in files])
            got = []
            get = timed(lambda: got.extend(disk.batched_get_blocking(keys)))
            self._check(chunks, got)
        measured.add(f"{name}, put until written", put, self.byte_count)
        measured.add(f"{name}, put + fsync", put + synced, self.byte_count)
        measured.add(f"{name}, get warm", get, self.byte_count)
        self.notes = [self._note(len(keys))]

    @property
    def _path(self):
        return self.folder / "lmcache"

    def _note(self, file_count: int) -> str:
        from importlib.metadata import version

        return (
            f"LMCache {version('lmcache')}: LocalDiskBackend without CUDA, {file_count} files of {PAGE_TOKENS} tokens, "
            "between them and its own memory at hand; copies to and from an engine are not counted. It does not wait for "
            "the disk and cannot be asked to: for put + fsync its files are synced after the put"
        )

    def _chunks(self) -> list[np.ndarray]:
        """The cache as LMCache lays it out: `[2, layers, tokens, heads * dim]` for every 256 tokens, as 16-bit words."""
        layers = len(self.cache) // 2
        rows = [
            [self.cache[f"layers.{layer}.{kind}"][0].transpose(1, 0, 2) for layer in range(layers)] for kind in ("key", "value")
        ]
        tokens = rows[0][0].shape[0]
        chunks = []
        for start in range(0, tokens, PAGE_TOKENS):
            page = [[row[start : start + PAGE_TOKENS].reshape(-1, row.shape[1] * row.shape[2]) for row in kind] for kind in rows]
            chunks.append(np.array(page))
        return chunks

    @contextmanager
    def _backend(self, chunks: list[np.ndarray]):
        """A disk backend on an empty folder, keys for the chunks, and the chunks in the backend's memory."""
        # Set before the import, which reads them: LMCache tells the terminal of every start, and its makers of its use.
        os.environ.setdefault("LMCACHE_LOG_LEVEL", "ERROR")
        os.environ["LMCACHE_TRACK_USAGE"] = "false"
        import torch
        from lmcache.utils import CacheEngineKey
        from lmcache.v1.config import LMCacheEngineConfig
        from lmcache.v1.memory_allocators.mixed_memory_allocator import MixedMemoryAllocator
        from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend
        from lmcache.v1.storage_backend.local_disk_backend import LocalDiskBackend

        pool_bytes = 2 * sum(math.ceil(chunk.nbytes / POOL_ALIGNMENT) * POOL_ALIGNMENT for chunk in chunks)
        config = LMCacheEngineConfig.from_defaults(
            chunk_size=PAGE_TOKENS,
            local_cpu=False,
            local_disk=str(self._path),
            max_local_disk_size=2 * pool_bytes / 1024**3,  # GiB
        )
        keys = [CacheEngineKey("reelkv-bench", 1, 0, number, torch.bfloat16) for number in range(len(chunks))]
        with _running_loop() as loop:
            memory = LocalCPUBackend(config, dst_device="cpu", memory_allocator=MixedMemoryAllocator(pool_bytes))
            disk = LocalDiskBackend(config, loop, memory, dst_device="cpu")
            try:
                yield disk, keys, _in_pool(memory, chunks)
            finally:
                disk.close()
                memory.close()
                shutil.rmtree(self._path, ignore_errors=True)

    def _put(self, disk, keys: list, stored: list):
        written = queue.SimpleQueue()
        disk.batched_submit_put_task(keys, stored, on_complete_callback=written.put)
        try:
            for _ in keys:
                written.get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            raise RuntimeError(
                f"LMCache wrote no chunk for {PATIENCE_SECONDS} s: is there room in {self._path}? "
                "TMPDIR names another folder; LMCACHE_LOG_LEVEL=DEBUG shows what it does"
            ) from None

    def _check(self, chunks: list[np.ndarray], got: list):
        """What was got is what was put: a read that LMCache gave up would be a fast one."""
        for number, (chunk, memory) in enumerate(zip(chunks, got, strict=True)):
            if memory is None or not np.array_equal(_words(memory), chunk):
                raise RuntimeError(f"LMCache did not give back chunk {number} as it was put; its figures would mean nothing")


def _in_pool(memory, chunks: list[np.ndarray]) -> list:
    """The chunks in memory of the pool; what is left of the pool is written to, and free for what will be read."""
    import torch

    stored, spare = (
        [memory.allocate(torch.Size(chunk.shape), torch.bfloat16, busy_loop=False) for chunk in chunks] for _ in range(2)
    )
    if None in stored + spare:
        raise RuntimeError("LMCache's pool does not hold the chunks twice; the benchmark expects it to waste nothing")
    for chunk, kept, free in zip(chunks, stored, spare):
        _words(kept)[...] = chunk
        _words(free)[...] = 1
        free.ref_count_down()
    return stored


def _words(memory) -> np.ndarray:
    """A chunk's memory as 16-bit words, not copied."""
    import torch

    return memory.tensor.view(torch.int16).numpy().view(np.uint16)


@contextmanager
def _running_loop():
    """An event loop in a thread of its own: LMCache's writes start from one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="lmcache-loop", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

"""What else could keep the same tensors, each measured once per round."""

import os
import time
from pathlib import Path

import numpy as np

from . import tensors
from .rounds import Measurements

PAGE_TOKENS = 256


def contenders(folder: Path, cache: dict[str, np.ndarray]) -> list["Contender"]:
    return [
        Safetensors(folder, cache),
        Zstd(folder, cache, 1),
        Zstd(folder, cache, 3),
        Lmdb(folder, cache),
        PublishedVidKV(folder, cache),
    ]


class Contender:
    """Tensors, a folder, and what there is to say about how they were measured."""

    def __init__(self, folder: Path, cache: dict[str, np.ndarray]):
        self.folder, self.cache = folder, cache
        self.byte_count = sum(array.nbytes for array in cache.values())
        self.notes: list[str] = []

    def measure_round(self, measured: Measurements):
        raise NotImplementedError


def timed(body) -> float:
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


def sync(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_cold(path: Path) -> str:
    """Takes a file that nobody has mapped out of the page cache; says how."""
    sync(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
        return "drop_caches"
    except OSError:
        return "posix_fadvise"


class Safetensors(Contender):
    """Writes and loads the uncompressed tensors. Loading copies them to memory that it allocates."""

    def measure_round(self, measured: Measurements):
        from safetensors.numpy import load_file, save_file

        path = self.folder / "cache.safetensors"
        memory = np.ones(self.byte_count + (1 << 20), np.uint8)

        def save():
            save_file(self.cache, path)
            sync(path)

        def read():
            with open(path, "rb", buffering=0) as file:
                file.readinto(memory)

        measured.add("safetensors save + fsync", timed(save), self.byte_count)
        measured.add("safetensors load warm", timed(lambda: load_file(path)), self.byte_count)
        measured.add("the file read into memory at hand, warm", timed(read), self.byte_count)
        way = make_cold(path)
        measured.add("safetensors load cold", timed(lambda: load_file(path)), self.byte_count)
        make_cold(path)
        measured.add("the file read into memory at hand, cold", timed(read), self.byte_count)
        self.notes = [f"cold: page cache emptied by {way}; loading allocates, a restore writes to memory that is there"]
        path.unlink()


class Zstd(Contender):
    """Raw bytes of each tensor as one zstd frame."""

    def __init__(self, folder: Path, cache: dict[str, np.ndarray], level: int):
        super().__init__(folder, cache)
        self.level = level

    def measure_round(self, measured: Measurements):
        import zstandard

        path = self.folder / f"cache.{self.level}.zst"
        frames = []

        def save():
            compressor = zstandard.ZstdCompressor(level=self.level)
            frames[:] = [compressor.compress(array.tobytes()) for array in self.cache.values()]
            with open(path, "wb") as file:
                for frame in frames:
                    file.write(frame)
            sync(path)

        def load():
            data, at = path.read_bytes(), 0
            decompressor = zstandard.ZstdDecompressor()
            for frame in frames:
                decompressor.decompress(data[at : at + len(frame)])
                at += len(frame)

        name = f"zstd -{self.level} of the raw bytes"
        measured.add(f"{name}, save + fsync", timed(save), self.byte_count)
        measured.add(f"{name}, load warm", timed(load), self.byte_count)
        self.notes = [f"{name}: {8 * sum(map(len, frames)) / (self.byte_count / 2):.2f} bits per element"]
        path.unlink()


class Lmdb(Contender):
    """Raw bytes in py-lmdb, a value per page, layer and tensor."""

    def measure_round(self, measured: Measurements):
        import lmdb

        path = self.folder / "cache.mdb"
        environment = lmdb.open(str(path), subdir=False, map_size=4 * self.byte_count, writemap=False)
        pages = range(0, next(iter(self.cache.values())).shape[2], PAGE_TOKENS)

        def save():
            with environment.begin(write=True) as transaction:
                for name, array in self.cache.items():
                    for page in pages:
                        transaction.put(f"{name}/{page}".encode(), array[:, :, page : page + PAGE_TOKENS].tobytes())

        def load():
            with environment.begin(buffers=True) as transaction:
                for name, target in targets.items():
                    for page in pages:
                        part = target[:, :, page : page + PAGE_TOKENS]
                        part[...] = np.frombuffer(transaction.get(f"{name}/{page}".encode()), np.uint16).reshape(part.shape)

        targets = {name: np.ones_like(array) for name, array in self.cache.items()}
        measured.add("py-lmdb of the raw bytes, put + sync", timed(save), self.byte_count)
        measured.add("py-lmdb of the raw bytes, get warm", timed(load), self.byte_count)
        environment.close()
        path.unlink()


class PublishedVidKV(Contender):
    """The published arithmetic in torch: to codes and back, in memory; nothing is packed or stored."""

    def measure_round(self, measured: Measurements):
        import torch

        from baselines import vidkv

        tensors_of = {name: torch.from_numpy(tensors.floats(array[0])) for name, array in self.cache.items()}
        encoded = {}

        def encode():
            for name, x in tensors_of.items():
                encoded[name] = vidkv.encode_key(x) if name.endswith("key") else vidkv.encode_value(x)

        def decode():
            for name, codes in encoded.items():
                shape = tensors_of[name].shape
                x = vidkv.decode_key(codes, shape) if name.endswith("key") else vidkv.decode_value(codes)
                x.to(torch.bfloat16)

        with torch.inference_mode():
            measured.add("VidKV 1.5/1.58 as published, in torch: encode", timed(encode), self.byte_count)
            measured.add("VidKV 1.5/1.58 as published, in torch: decode", timed(decode), self.byte_count)

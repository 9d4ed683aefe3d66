"""A model's record: geometry and rotary parameters of every layer (FORMAT.md, "model")."""

import struct
from dataclasses import dataclass

import numpy as np

from .errors import FormatError
from .records import LAYERRECORD_STRUCT, MODELRECORD_STRUCT, ROTARYRECORD_STRUCT, LayerRecord, ModelRecord, RotaryRecord
from .values import ELEMENT_TYPES, ElementType

NO_ROTARY = 65535
PAIRING_HALVES, PAIRING_INTERLEAVED = 0, 1


@dataclass(frozen=True)
class Rotary:
    """Pair i of a key turns by position * inverse_frequencies[i]."""

    inverse_frequencies: np.ndarray
    pairing: int
    sections: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    heads: int
    key_dim: int
    value_dim: int
    sliding_window: int
    rotary: Rotary | None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.heads, self.key_dim, self.value_dim

    def check(self, index: int):
        """Throws when the rotary table does not fit the keys."""
        if self.rotary is None:
            return
        pairs = len(self.rotary.inverse_frequencies)
        if not 1 <= pairs <= self.key_dim // 2 or not np.isfinite(self.rotary.inverse_frequencies).all():
            raise FormatError(f"layer {index}: {pairs} rotary pairs do not fit keys of {self.key_dim} channels")
        if self.rotary.sections and sum(self.rotary.sections) != pairs:
            raise FormatError(f"layer {index}: rotary sections {self.rotary.sections} do not add up to {pairs} pairs")


@dataclass(frozen=True)
class Model:
    name: str
    model_id: int
    fingerprint: bytes
    element_type: ElementType
    layers: tuple[Layer, ...]
    record: bytes
    """The record as stored, from which the chain's root is made."""

    @classmethod
    def parse(cls, name: str, data: bytes) -> "Model":
        try:
            return cls._parse(name, data)
        except (struct.error, KeyError, IndexError, ValueError) as error:
            raise FormatError(f"the record of model {name!r} is damaged: {error}") from error

    @classmethod
    def _parse(cls, name: str, data: bytes) -> "Model":
        record = ModelRecord.read(data)
        at = MODELRECORD_STRUCT.size + record.layer_count * LAYERRECORD_STRUCT.size
        tables = []
        for _ in range(record.rotary_count):
            table, at = parse_rotary(data, at)
            tables.append(table)
        if at != len(data):
            raise FormatError(f"{len(data) - at} bytes follow the last rotary table")
        layers = []
        for index in range(record.layer_count):
            layer = LayerRecord.read(data, MODELRECORD_STRUCT.size + index * LAYERRECORD_STRUCT.size)
            rotary = None if layer.rotary_index == NO_ROTARY else tables[layer.rotary_index]
            layers.append(Layer(layer.key_value_heads, layer.key_dim, layer.value_dim, layer.sliding_window, rotary))
            layers[-1].check(index)
        kind = ELEMENT_TYPES[record.element_type]
        return cls(name, record.model_id, record.fingerprint, kind, tuple(layers), bytes(data))

    def chain_bytes(self) -> bytes:
        """The record with everything zero that does not shape the cache: the model's id and its time."""
        record = ModelRecord.read(self.record)
        plain = MODELRECORD_STRUCT.pack(*record._replace(model_id=0, created_seconds=0))
        return plain + self.record[MODELRECORD_STRUCT.size :]


def parse_rotary(data: bytes, at: int) -> tuple[Rotary, int]:
    """The table at an offset, and where it ends. Model records and page images keep tables in the same form."""
    record = RotaryRecord.read(data, at)
    if record.pairing not in (PAIRING_HALVES, PAIRING_INTERLEAVED):
        raise FormatError(f"rotary pairing {record.pairing} is not known")
    at += ROTARYRECORD_STRUCT.size
    sections = struct.unpack_from(f"<{record.section_count}I", data, at)
    at += 4 * record.section_count
    frequencies = np.frombuffer(data, "<f4", record.pair_count, at)
    return Rotary(frequencies, record.pairing, sections), at + 4 * record.pair_count

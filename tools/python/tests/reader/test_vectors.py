"""Golden page images (schema/vectors): each decodes to the values that lie beside it, in single precision."""

import numpy as np
import pytest

from reelkv.reader import PageImage, decode_layer
from reelkv.reader.section import FOURIER, UNROTATED, parse_section
from reelkv.reader.values import FLOAT32

from .support import VECTORS


@pytest.mark.parametrize("path", sorted(VECTORS.glob("v*/*.page")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_images_decode_to_their_values(path):
    image = PageImage(path.read_bytes())
    image.verify()
    golden = np.frombuffer(path.with_suffix(".f32").read_bytes(), "<u4")
    at = 0
    for index, entry in enumerate(image.layers):
        if entry is None:
            continue
        turned = uses_trigonometry(image, index)
        for decoded in decode_layer(image, index, FLOAT32):
            expected = golden[at : at + decoded.size].reshape(decoded.shape)
            at += decoded.size
            if turned:
                values, expected = FLOAT32.to_float32(decoded), FLOAT32.to_float32(expected)
                assert np.abs(values - expected).max() <= 2.0**-20 * np.abs(expected).max()
            else:
                assert np.array_equal(decoded, expected)
    assert at == golden.size


def uses_trigonometry(image: PageImage, index: int) -> bool:
    entry = image.layers[index]
    present = int(np.bitwise_or.reduce(1 << image.classes[entry.first_token :]))
    parts = parse_section(image.section(index), entry.layer, image.element_type, present)
    return any(part.has(UNROTATED | FOURIER) for part in parts)

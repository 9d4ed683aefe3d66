"""The inverse real Fourier transform across channels, in single precision (FORMAT.md, "Fourier transform").

A row of n reals holds the spectrum: Re X0 ... Re X(n/2), then Im X1 ... up to, for even n, Im X(n/2 - 1). Sums are rounded in the
order in which they are made, so the order of operations is part of the format.
"""

import math

import numpy as np


def inverse(spectrum: np.ndarray) -> np.ndarray:
    """`[n, tokens]` float32 spectra, one a column, to samples of the same shape."""
    n = len(spectrum)
    scaled = np.empty_like(spectrum)
    scaled[:] = spectrum * np.float32(1 / math.sqrt(2 * n))
    end = np.float32(1 / math.sqrt(n))
    scaled[0] = spectrum[0] * end
    if n % 2 == 0:
        scaled[n // 2] = spectrum[n // 2] * end
    return _unscaled_inverse(scaled)


def _unscaled_inverse(spectrum: np.ndarray) -> np.ndarray:
    n = len(spectrum)
    if n % 2 != 0:
        return _direct_inverse(spectrum)
    even, odd = _split(spectrum)
    samples = np.empty_like(spectrum)
    samples[0::2] = _unscaled_inverse(even)
    samples[1::2] = _unscaled_inverse(odd)
    return samples


def _split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The spectra of the even and of the odd samples, from the spectrum of all."""
    n, half = len(x), len(x) // 2
    cosines, sines = _angles(n, n // 4 + 1)
    even, odd = np.empty_like(x[:half]), np.empty_like(x[:half])
    even[0] = x[0] + x[half]
    odd[0] = x[0] - x[half]
    k = np.arange(1, (half + 1) // 2)
    if k.size:
        real, imaginary, mirror_real, mirror_imaginary = x[k], x[half + k], x[half - k], x[n - k]
        c, s = cosines[k, np.newaxis], sines[k, np.newaxis]
        difference, total = real - mirror_real, imaginary + mirror_imaginary
        even[k] = real + mirror_real
        even[half // 2 + k] = imaginary - mirror_imaginary
        odd[k] = c * difference - s * total
        odd[half // 2 + k] = c * total + s * difference
    if half % 2 == 0:
        even[half // 2] = 2 * x[half // 2]
        odd[half // 2] = -2 * x[half + half // 2]
    return even, odd


def _direct_inverse(x: np.ndarray) -> np.ndarray:
    """The sum over frequencies, for odd n."""
    n = len(x)
    cosines, sines = _angles(n, n)
    samples = np.repeat(x[:1], n, axis=0)
    j = np.arange(n)
    for k in range(1, (n + 1) // 2):
        c = (2 * cosines[j * k % n])[:, np.newaxis]
        s = (2 * sines[j * k % n])[:, np.newaxis]
        samples += c * x[k] - s * x[n // 2 + k]
    return samples


def _angles(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of 2 pi k / length for k in 0 ..< count, rounded once."""
    angles = [2 * math.pi * k / length for k in range(count)]
    return np.float32([math.cos(angle) for angle in angles]), np.float32([math.sin(angle) for angle in angles])

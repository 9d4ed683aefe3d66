"""What was measured, by name, round after round."""

import statistics


class Measurements:
    """Seconds, and the bytes that they were spent on."""

    def __init__(self):
        self.values: dict[str, list[float]] = {}
        self.bytes: dict[str, int] = {}

    def add(self, name: str, value: float, byte_count: int | None = None):
        self.values.setdefault(name, []).append(value)
        if byte_count is not None:
            self.bytes[name] = byte_count

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def rate(self, name: str) -> float:
        """Bytes per second of the median."""
        return self.bytes[name] / self.median(name)

    def summary(self) -> dict[str, dict]:
        return {
            name: {
                "median": statistics.median(values),
                "least": min(values),
                "greatest": max(values),
                "rounds": len(values),
                **({"bytes": self.bytes[name]} if name in self.bytes else {}),
            }
            for name, values in self.values.items()
        }

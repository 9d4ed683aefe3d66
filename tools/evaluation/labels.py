"""Names beside the points of a plot, where they hide neither points nor each other."""

from itertools import product

# Where a label may stand, in points from its point: beside it first, then farther.
ANGLES = [(1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.7), (-0.8, 0.7), (0.8, -0.7), (-0.8, -0.7)]
DISTANCES = [7, 13, 20, 28, 38, 50]
POINT_SIZE = 7


def place(axes, labels: list[tuple[str, float, float, str]], fontsize: float):
    """Writes `(text, x, y, colour)` beside the points at x, y of data, each with a thin line where it had to move away."""
    figure = axes.figure
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    pixels = figure.dpi / 72
    half = POINT_SIZE / 2 * pixels
    points = [axes.transData.transform((x, y)) for _, x, y, _ in labels]
    taken = [(x - half, y - half, x + half, y + half) for x, y in points]
    frame = axes.get_window_extent(renderer).extents
    for (text, x, y, colour), point in zip(labels, points):
        sample = axes.text(x, y, text, fontsize=fontsize)
        size = sample.get_window_extent(renderer)
        sample.remove()
        best = min(_candidates(point, size.width, size.height, pixels), key=lambda option: _cost(option, taken, frame))
        taken.append(best[1])
        _, box, distance = best
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        offset = [(centre[axis] - point[axis]) / pixels for axis in (0, 1)]
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6} if distance > DISTANCES[0] else None
        axes.annotate(
            text, (x, y), xytext=offset, textcoords="offset points", ha="center", va="center", fontsize=fontsize, color=colour,
            arrowprops=line and {**line, "shrinkA": 0, "shrinkB": 3},
        )


def _candidates(point, width: float, height: float, pixels: float):
    """`(order, box, distance)`, nearest first."""
    for order, (distance, (right, up)) in enumerate(product(DISTANCES, ANGLES)):
        x = point[0] + right * distance * pixels + (width / 2 if right > 0 else -width / 2 if right < 0 else 0)
        y = point[1] + up * distance * pixels + (height / 2 if up > 0 else -height / 2 if up < 0 else 0)
        yield order, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), distance


def _cost(option, taken, frame) -> tuple[float, int]:
    """Area that would be hidden, or lie outside of the axes; then how far away."""
    order, box, _ = option
    outside = (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
    return (sum(_overlap(box, other) for other in taken) + outside, order)


def _overlap(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0

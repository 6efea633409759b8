"""Places text labels beside points. Labels should not cover each other or anything that is drawn.

Every place around a point has a cost. The search moves one label after the other to the label's cheapest place, and
repeats this until no label finds a better place. This method is coordinate descent. It is deterministic, and good
enough for some forty labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Pixels between a point and its label, from near to far.
_DISTANCES = (11.0, 22.0, 38.0, 58.0, 82.0, 110.0, 145.0, 185.0)
_DIRECTIONS = 16
_ROUNDS = 12
#: The cost of one square pixel of overlap.
_OVERLAP = 5.0
#: The cost if the line from a label to its point crosses another label's box or another label's line.
_CROSSING = 400.0
#: The cost if a label covers a segment of a drawn line.
_STRUCK = 25.0
#: Space kept free around each label, in pixels.
_PADDING = 3.0

#: The two ends of a line segment, in pixels.
Line = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Box:
    """An upright rectangle in pixels. The origin of the plane is at the bottom left."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Returns the area that both rectangles cover, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def padded(self, by: float) -> Box:
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def closest_point(self, x: float, y: float) -> tuple[float, float]:
        """Returns the point of the rectangle that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    def outside(self, frame: Box) -> float:
        """Returns the area of the rectangle that lies outside a frame."""
        return (self.right - self.left) * (self.top - self.bottom) - self.overlap(frame)


@dataclass(frozen=True)
class Label:
    """A text of ``width`` x ``height`` pixels that belongs to the point ``anchor``."""

    anchor: tuple[float, float]
    width: float
    height: float


def place_labels(labels: Sequence[Label], obstacles: Sequence[Box], lines: Sequence[Line], frame: Box) -> list[Box]:
    """Returns the place of each label, in the order of ``labels``.

    The search avoids places that cover ``obstacles`` or ``lines``. A label leaves ``frame`` only if none of its
    places lies within ``frame``. All arguments are in pixels.
    """
    places = [_ranked_places(label, obstacles, lines, frame) for label in labels]
    chosen: list[Box | None] = [None] * len(labels)
    for _ in range(_ROUNDS):
        before = list(chosen)
        for index, label in enumerate(labels):
            taken = [
                (box, (box.closest_point(*labels[other].anchor), labels[other].anchor))
                for other, box in enumerate(chosen)
                if box is not None and other != index
            ]
            chosen[index] = _cheapest(places[index], label.anchor, taken)
        if chosen == before:
            break
    return [box for box in chosen if box is not None]


def _ranked_places(
    label: Label, obstacles: Sequence[Box], lines: Sequence[Line], frame: Box
) -> list[tuple[float, Box]]:
    """Returns the places of one label with their costs, cheapest first. The costs leave out the other labels.

    Places that reach beyond the frame are left out, unless all places do so.
    """
    candidates = list(_candidates(label))
    within = [(box, cost) for box, cost in candidates if box.outside(frame) == 0]
    places = []
    for box, cost in within or candidates:
        room = box.padded(_PADDING)
        covered = box.outside(frame) * 4 + sum(room.overlap(obstacle) for obstacle in obstacles)
        struck = sum(_passes(line, room) for line in lines)
        to_point = (box.closest_point(*label.anchor), label.anchor)
        foreign = (other for other in obstacles if other.closest_point(*label.anchor) != label.anchor)
        struck += sum(4 * _passes(to_point, other) for other in foreign)
        places.append((cost + _OVERLAP * covered + _STRUCK * struck, box))
    return sorted(places, key=lambda place: place[0])


def _cheapest(
    places: Sequence[tuple[float, Box]], anchor: tuple[float, float], taken: Sequence[tuple[Box, Line]]
) -> Box:
    """Returns the cheapest place, given the labels that are already placed (``taken``).

    The search can stop early, because ``places`` is sorted by cost.
    """
    lowest, best = math.inf, places[0][1]
    for own_cost, box in places:
        if own_cost >= lowest:
            break
        cost = own_cost + _cost_beside(box, anchor, taken)
        if cost < lowest:
            lowest, best = cost, box
    return best


def _candidates(label: Label) -> Iterator[tuple[Box, float]]:
    """Yields rectangles around the point, each with its own cost.

    The cost grows with the distance from the point. It also grows a little with the angle to the upper right, because a
    reader looks there first.
    """
    x, y = label.anchor
    for distance in _DISTANCES:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            centre_x = x + across * (distance + label.width / 2)
            centre_y = y + up * (distance + label.height / 2)
            box = Box(
                centre_x - label.width / 2,
                centre_y - label.height / 2,
                centre_x + label.width / 2,
                centre_y + label.height / 2,
            )
            yield box, math.dist(box.closest_point(x, y), (x, y)) * 3 + (1 - across) * 2 + (1 - up) * 2


def _cost_beside(box: Box, anchor: tuple[float, float], taken: Sequence[tuple[Box, Line]]) -> float:
    """Returns what a place costs because of the labels that are already placed: for overlaps and for crossing lines."""
    padded = box.padded(_PADDING)
    line = (box.closest_point(*anchor), anchor)
    cost = 0.0
    for other, other_line in taken:
        cost += _OVERLAP * 4 * padded.overlap(other)
        if _cross(line, other_line) or _passes(line, other) or _passes(other_line, box):
            cost += _CROSSING
    return cost


def _passes(line: Line, box: Box) -> bool:
    """Whether a line passes through a rectangle. The test is whether the line crosses one of the two diagonals."""
    return _cross(line, ((box.left, box.bottom), (box.right, box.top))) or _cross(
        line, ((box.left, box.top), (box.right, box.bottom))
    )


def _cross(one: Line, two: Line) -> bool:
    """Whether two segments cross."""
    return _side(one, two[0]) * _side(one, two[1]) < 0 and _side(two, one[0]) * _side(two, one[1]) < 0


def _side(line: Line, point: tuple[float, float]) -> float:
    (x0, y0), (x1, y1) = line
    return (x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0)

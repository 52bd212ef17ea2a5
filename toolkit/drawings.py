"""The project's own sample pictures: one drawing for each class of CIFAR-10, 256×256 pixels.

Drawn with Pillow, so there are no photographs of others in the repository, and the bytes are always the same
(for one version of Pillow). Coordinates are those of the finished picture; everything is drawn four times as
large and reduced, which smooths the edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

SIDE = 256
_SCALE = 4
Point = tuple[float, float]
Colour = tuple[int, int, int]

_BLACK, _WHITE = (28, 28, 32), (250, 250, 248)
_SKY = ((96, 160, 226), (206, 230, 248))
_MEADOW = ((108, 168, 82), (78, 136, 62))
_ROAD = ((122, 122, 126), (96, 96, 102))
_SEA = ((44, 112, 168), (20, 70, 124))


class Canvas:
    """A drawing surface which takes coordinates of the finished picture."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIDE * _SCALE, SIDE * _SCALE))
        self.draw = ImageDraw.Draw(self.image)

    def fade(self, top: float, bottom: float, colours: tuple[Colour, Colour]) -> None:
        """Fill the rows from ``top`` to ``bottom``, the first colour going over into the second."""
        first, last = round(top * _SCALE), round(bottom * _SCALE)
        for row in range(first, last):
            part = (row - first) / max(1, last - first - 1)
            mixed = [round(a + (b - a) * part) for a, b in zip(*colours, strict=True)]
            self.draw.line([(0, row), (SIDE * _SCALE, row)], fill=(mixed[0], mixed[1], mixed[2]))

    def ground(self, horizon: float, above: tuple[Colour, Colour], below: tuple[Colour, Colour]) -> None:
        self.fade(0, horizon, above)
        self.fade(horizon, SIDE, below)

    def polygon(self, colour: Colour, *points: Point) -> None:
        self.draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill=colour)

    def oval(self, colour: Colour, x: float, y: float, rx: float, ry: float | None = None) -> None:
        """An ellipse around (x, y) with the radii ``rx`` and ``ry`` (a circle without ``ry``)."""
        ry = rx if ry is None else ry
        box = [(x - rx) * _SCALE, (y - ry) * _SCALE, (x + rx) * _SCALE, (y + ry) * _SCALE]
        self.draw.ellipse(box, fill=colour)

    def box(
        self, colour: Colour, left: float, top: float, right: float, bottom: float, radius: float = 0
    ) -> None:
        corners = [left * _SCALE, top * _SCALE, right * _SCALE, bottom * _SCALE]
        self.draw.rounded_rectangle(corners, radius * _SCALE, fill=colour)

    def line(self, colour: Colour, width: float, *points: Point) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self.draw.line(scaled, fill=colour, width=round(width * _SCALE), joint="curve")
        for x, y in (points[0], points[-1]):
            self.oval(colour, x, y, width / 2 - 0.2)

    def eye(self, x: float, y: float, radius: float) -> None:
        self.oval(_BLACK, x, y, radius)
        self.oval(_WHITE, x - radius * 0.3, y - radius * 0.35, radius * 0.35)

    def finished(self) -> Image.Image:
        return self.image.resize((SIDE, SIDE), Image.Resampling.BOX)


def airplane() -> Image.Image:
    c = Canvas()
    c.fade(0, SIDE, _SKY)
    clouds = ((52, 196, 20), (78, 188, 26), (106, 198, 18), (188, 60, 14), (206, 54, 18), (226, 62, 13))
    for x, y, r in clouds:
        c.oval(_WHITE, x, y, r, r * 0.7)
    body, shade = (236, 239, 244), (176, 186, 200)
    c.polygon(shade, (120, 118), (164, 112), (150, 62), (134, 62))  # far wing
    c.polygon((206, 62, 58), (44, 118), (70, 116), (48, 76), (32, 78))  # fin
    c.oval(body, 128, 124, 92, 17)
    c.polygon(body, (40, 118), (72, 111), (72, 139), (48, 130))
    c.polygon((206, 62, 58), (40, 128), (210, 131), (202, 135), (60, 135))
    c.polygon(shade, (114, 130), (164, 128), (112, 192), (92, 192))  # near wing
    c.box((92, 104, 122), 116, 150, 142, 160, 5)  # engine
    c.polygon((150, 162, 178), (46, 124), (70, 122), (48, 144), (36, 144))  # tailplane
    c.polygon((62, 92, 130), (194, 113), (208, 117), (206, 122), (192, 121))
    for x in range(84, 190, 12):
        c.oval((62, 92, 130), x, 120, 3)
    return c.finished()


def automobile() -> Image.Image:
    c = Canvas()
    c.ground(150, _SKY, _ROAD)
    c.fade(138, 156, _MEADOW)
    for x in range(6, SIDE, 52):
        c.box((226, 222, 196), x, 226, x + 28, 231)
    red, dark = (204, 44, 44), (156, 26, 32)
    c.oval((78, 78, 84), 128, 206, 106, 9)  # shadow
    c.polygon(dark, (74, 130), (96, 96), (160, 96), (190, 130))
    c.polygon((170, 208, 230), (84, 130), (101, 102), (124, 102), (124, 130))
    c.polygon((170, 208, 230), (132, 130), (132, 102), (156, 102), (176, 130))
    c.box(red, 28, 128, 228, 186, 20)
    c.polygon(red, (28, 150), (60, 128), (120, 126), (200, 128), (228, 152))
    c.box(dark, 30, 170, 226, 186, 8)
    c.oval((250, 236, 160), 220, 150, 7, 8)
    c.oval((250, 140, 60), 34, 152, 5, 8)
    c.line(dark, 2, (128, 132), (128, 176))
    c.box((236, 220, 220), 136, 142, 150, 146, 2)
    for x in (74, 184):
        c.oval(_BLACK, x, 186, 25)
        c.oval((190, 194, 200), x, 186, 13)
        c.oval((92, 96, 102), x, 186, 5)
    return c.finished()


def bird() -> Image.Image:
    c = Canvas()
    c.fade(0, SIDE, ((188, 222, 236), (232, 242, 224)))
    for x, y in ((40, 60), (26, 96), (222, 196), (236, 150), (206, 36)):
        c.oval((146, 190, 110), x, y, 17, 9)
        c.oval((122, 170, 92), x + 14, y + 8, 15, 8)
    c.line((112, 80, 56), 11, (-6, 196), (110, 204), (262, 184))
    blue, deep = (58, 118, 192), (34, 76, 142)
    c.polygon(deep, (100, 156), (30, 182), (22, 204), (50, 202), (116, 180))  # tail
    c.oval(blue, 132, 146, 52, 45)
    c.oval((236, 160, 92), 150, 160, 35, 31)  # breast
    c.oval(blue, 172, 96, 32, 30)
    c.polygon((240, 184, 60), (200, 88), (232, 98), (200, 107))
    c.polygon(deep, (100, 118), (148, 132), (140, 172), (74, 182), (84, 144))  # wing
    c.line((24, 58, 116), 3, (86, 172), (134, 158))
    c.line((24, 58, 116), 3, (92, 158), (136, 145))
    c.eye(182, 90, 6)
    for x in (132, 152):
        c.line((196, 130, 50), 4, (x, 187), (x + 2, 203))
        c.line((196, 130, 50), 4, (x - 6, 205), (x + 10, 203))
    return c.finished()


def cat() -> Image.Image:
    c = Canvas()
    c.ground(186, ((238, 216, 190), (246, 232, 212)), ((170, 122, 84), (142, 98, 66)))
    orange, dark, cream = (226, 146, 66), (182, 104, 38), (250, 232, 206)
    c.line(dark, 17, (184, 222), (222, 204), (228, 160), (212, 140))  # tail
    c.oval(orange, 128, 204, 58, 50)
    c.oval(cream, 128, 214, 30, 40)
    for left, tip, right in (((72, 84), (66, 26), (112, 58)), ((184, 84), (190, 26), (144, 58))):
        c.polygon(orange, left, tip, right)
    c.polygon((240, 180, 170), (78, 72), (74, 40), (100, 60))
    c.polygon((240, 180, 170), (178, 72), (182, 40), (156, 60))
    c.oval(orange, 128, 104, 64, 54)
    for x in (112, 128, 144):
        c.line(dark, 6, (x, 54), (128 + (x - 128) * 0.8, 78))
    for side in (-1, 1):
        c.line(dark, 5, (128 + side * 60, 100), (128 + side * 44, 103))
        c.line(dark, 5, (128 + side * 57, 116), (128 + side * 44, 115))
        c.oval((150, 196, 92), 128 + side * 27, 98, 13, 12)
        c.oval(_BLACK, 128 + side * 27, 98, 5, 11)
        c.oval(_WHITE, 128 + side * 27 - 3, 93, 3)
        c.oval(cream, 128 + side * 12, 128, 17, 13)
        for dy in (-6, 2, 10):
            c.line(_WHITE, 1.5, (128 + side * 22, 126 + dy * 0.3), (128 + side * 78, 122 + dy * 1.5))
        c.oval(orange, 128 + side * 26, 244, 19, 13)
    c.polygon((212, 110, 110), (119, 114), (137, 114), (128, 124))
    return c.finished()


def deer() -> Image.Image:
    c = Canvas()
    c.ground(176, ((236, 214, 160), (246, 238, 208)), _MEADOW)
    for x in (14, 46, 214, 244):
        c.polygon((72, 116, 74), (x - 26, 180), (x, 76), (x + 26, 180))
    brown, dark, pale = (166, 106, 60), (118, 72, 42), (230, 202, 166)
    for x in (92, 108, 152, 166):
        c.polygon(dark if x in (108, 152) else brown, (x - 7, 160), (x + 7, 160), (x + 4, 236), (x - 3, 236))
        c.box(_BLACK, x - 4, 230, x + 5, 238, 2)
    c.oval(brown, 126, 150, 54, 30)
    c.oval(pale, 78, 144, 11, 14)
    c.polygon(brown, (146, 140), (166, 84), (188, 92), (178, 156))  # neck
    c.oval(brown, 184, 80, 18, 17)
    c.polygon(brown, (184, 66), (222, 86), (218, 98), (184, 98))
    c.oval(_BLACK, 219, 90, 5)
    c.polygon(pale, (168, 66), (146, 52), (162, 76))
    c.polygon(brown, (196, 64), (214, 50), (204, 72))
    for side in (-1, 1):
        root = 181 + side * 7
        c.line(dark, 5, (root, 66), (root + side * 18, 40), (root + side * 14, 10))
        c.line(dark, 4, (root + side * 18, 40), (root + side * 34, 26))
        c.line(dark, 4, (root + side * 10, 52), (root + side * 26, 48))
    c.eye(191, 77, 4)
    for x, y in ((96, 138), (112, 132), (128, 140), (144, 132), (112, 150), (132, 154)):
        c.oval(pale, x, y, 4, 3)
    return c.finished()


def dog() -> Image.Image:
    c = Canvas()
    c.ground(170, _SKY, _MEADOW)
    tan, dark, cream = (208, 166, 112), (120, 78, 46), (246, 232, 208)
    c.oval(tan, 128, 214, 60, 56)
    c.oval(cream, 128, 222, 32, 44)
    c.oval(tan, 128, 104, 60, 60)
    c.oval(cream, 128, 134, 36, 30)
    c.polygon(cream, (119, 50), (137, 50), (142, 116), (114, 116))
    for side in (-1, 1):
        c.polygon(
            dark,
            (128 + side * 40, 54),
            (128 + side * 76, 70),
            (128 + side * 80, 136),
            (128 + side * 62, 142),
            (128 + side * 50, 92),
        )
        c.oval(dark, 128 + side * 71, 132, 11, 17)
        c.eye(128 + side * 25, 98, 9)
        c.line(dark, 4, (128 + side * 16, 80), (128 + side * 34, 80))
        c.line(dark, 3, (128, 138), (128 + side * 8, 146), (128 + side * 20, 144))
        c.oval(tan, 128 + side * 30, 246, 22, 14)
    c.oval((226, 104, 110), 128, 158, 10, 14)
    c.line((186, 70, 80), 2, (128, 150), (128, 166))
    c.oval(_BLACK, 128, 122, 14, 10)
    c.oval((120, 120, 126), 124, 118, 4, 2)
    c.box((60, 110, 190), 86, 168, 170, 180, 6)  # collar
    c.oval((240, 200, 70), 128, 184, 9)
    return c.finished()


def frog() -> Image.Image:
    c = Canvas()
    c.fade(0, SIDE, ((120, 184, 196), (50, 124, 150)))
    for x, y, r in ((36, 46, 34), (222, 40, 30), (226, 132, 22)):
        c.oval((78, 150, 84), x, y, r, r * 0.4)
    c.oval((62, 138, 78), 128, 216, 122, 36)  # lily pad
    c.oval((84, 164, 94), 128, 211, 116, 30)
    c.polygon((58, 134, 156), (128, 212), (238, 238), (196, 256))
    green, dark, pale = (112, 190, 60), (66, 138, 42), (220, 236, 160)
    for side in (-1, 1):
        c.oval(dark, 128 + side * 66, 180, 34, 33)
        c.oval(green, 128 + side * 70, 204, 38, 11)
    c.oval(green, 128, 158, 70, 60)
    c.oval(pale, 128, 176, 50, 40)
    c.oval(green, 128, 116, 66, 45)
    for side in (-1, 1):
        c.oval(green, 128 + side * 38, 76, 25)
        c.oval(_WHITE, 128 + side * 38, 74, 17)
        c.oval((236, 190, 60), 128 + side * 38, 75, 14)
        c.oval(_BLACK, 128 + side * 38, 76, 10, 6)
        c.oval(dark, 128 + side * 8, 108, 2.5)
        c.line(dark, 11, (128 + side * 42, 168), (128 + side * 37, 206))
        for dx in (-11, 0, 11):
            c.line(green, 7, (128 + side * 37, 205), (128 + side * 37 + dx, 217))
    c.line(dark, 4, (76, 120), (98, 136), (128, 141), (158, 136), (180, 120))
    return c.finished()


def horse() -> Image.Image:
    c = Canvas()
    c.ground(178, _SKY, _MEADOW)
    for x in (-8, 74, 156, 238):
        c.box((232, 222, 204), x, 140, x + 8, 198)
    c.box((232, 222, 204), 0, 148, SIDE, 155)
    c.box((232, 222, 204), 0, 170, SIDE, 177)
    brown, dark, mane = (142, 84, 50), (110, 62, 36), (52, 34, 28)
    c.line(mane, 13, (64, 122), (42, 146), (42, 192))  # tail
    for x, colour in ((88, dark), (152, dark), (76, brown), (164, brown)):
        c.polygon(colour, (x - 10, 150), (x + 10, 150), (x + 5, 232), (x - 4, 232))
        c.box(_BLACK, x - 6, 228, x + 7, 240, 2)
    c.oval(brown, 118, 138, 60, 33)
    c.polygon(brown, (138, 126), (168, 58), (200, 68), (178, 152))  # neck
    c.polygon(mane, (132, 118), (160, 46), (178, 48), (172, 66), (152, 122))
    c.polygon(brown, (170, 44), (198, 46), (236, 92), (224, 108), (206, 100), (178, 78))  # head
    c.polygon(dark, (172, 50), (172, 24), (186, 46))
    c.polygon(brown, (182, 48), (190, 26), (196, 50))
    c.polygon(_WHITE, (196, 52), (206, 60), (224, 88), (214, 82))
    c.oval(dark, 228, 97, 9, 10)
    c.oval(_BLACK, 229, 95, 3, 2)
    c.eye(194, 63, 4.5)
    return c.finished()


def ship() -> Image.Image:
    c = Canvas()
    c.ground(158, _SKY, _SEA)
    c.oval((252, 226, 130), 214, 44, 20)
    for x, y, r in ((42, 40, 16), (62, 34, 20), (86, 42, 14)):
        c.oval(_WHITE, x, y, r, r * 0.65)
    hull, red = (38, 54, 84), (186, 52, 48)
    c.box((210, 90, 60), 104, 70, 124, 112)  # funnels
    c.box((210, 90, 60), 140, 70, 160, 112)
    for x in (104, 140):
        c.box(_BLACK, x, 70, x + 20, 80)
        for step, r in ((0, 7), (1, 9), (2, 11)):
            c.oval((226, 228, 232), x + 2 - step * 14, 60 - step * 9, r * 1.3, r)
    c.box(_WHITE, 66, 118, 192, 146)
    c.box((234, 236, 240), 84, 98, 178, 120)
    for x in range(76, 188, 16):
        c.box((80, 124, 170), x, 126, x + 9, 134)
    for x in range(92, 172, 16):
        c.box((80, 124, 170), x, 104, x + 9, 111)
    c.line((90, 90, 96), 3, (206, 146), (206, 84))
    c.polygon(red, (206, 84), (228, 91), (206, 98))
    c.polygon(hull, (22, 144), (240, 138), (214, 192), (48, 192))
    c.polygon(red, (40, 178), (221, 178), (214, 194), (48, 194))
    for x in range(58, 216, 20):
        c.oval((206, 220, 236), x, 160, 4)
    for x in range(-10, SIDE, 34):
        c.oval((196, 224, 240), x + 10, 196, 20, 5)
        c.oval((64, 132, 184), x + 24, 222, 18, 4)
    return c.finished()


def truck() -> Image.Image:
    c = Canvas()
    c.ground(160, ((244, 204, 150), (250, 232, 204)), _ROAD)
    c.fade(146, 166, ((196, 172, 112), (160, 138, 88)))
    for x in range(-8, SIDE, 52):
        c.box((226, 222, 196), x, 230, x + 28, 235)
    cab, dark = (40, 122, 96), (26, 86, 70)
    c.oval((78, 78, 84), 128, 212, 118, 8)
    c.box((228, 230, 232), 12, 62, 166, 178, 3)
    for x in range(26, 166, 14):
        c.line((198, 202, 206), 2, (x, 68), (x, 172))
    c.box((236, 150, 50), 12, 104, 166, 128)
    c.box((70, 74, 80), 12, 178, 238, 190)
    c.polygon(cab, (172, 92), (214, 92), (232, 134), (244, 142), (244, 186), (172, 186))
    c.polygon((176, 212, 230), (184, 102), (210, 102), (224, 134), (184, 134))
    c.line(dark, 2, (180, 140), (180, 182))
    c.line(dark, 2, (180, 140), (226, 140))
    c.box((220, 224, 226), 186, 150, 198, 154, 2)
    c.oval((252, 238, 170), 239, 160, 5, 8)
    c.box((60, 62, 68), 228, 182, 248, 192, 3)
    c.box((110, 112, 118), 168, 72, 174, 178, 2)
    for x in (48, 92, 206):
        c.oval(_BLACK, x, 192, 22)
        c.oval((188, 192, 198), x, 192, 11)
        c.oval((92, 96, 102), x, 192, 4)
    return c.finished()


# In the order of CIFAR-10's labels. The file names airplane.jpg and car.jpg are the tutorial's.
DRAWINGS: Sequence[tuple[str, Callable[[], Image.Image]]] = (
    ("airplane.jpg", airplane),
    ("car.jpg", automobile),
    ("bird.png", bird),
    ("cat.jpg", cat),
    ("deer.jpg", deer),
    ("dog.jpg", dog),
    ("frog.png", frog),
    ("horse.jpg", horse),
    ("ship.jpg", ship),
    ("truck.png", truck),
)

"""The README's moving picture of a terminal: a real run, recorded and played faster.

    make terminal

The command runs in a terminal of 80 columns that is emulated; what it shows is drawn now and then.
"""

import os
import pty
import select
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

TARGET = Path(__file__).parents[1] / "docs" / "terminal.gif"
COMMAND = ["flowtrain", "model=realnvp", "data=circles", "trainer.max_seconds=60"]
COLUMNS, LINES = 80, 26
SPEED = 6  # times faster than it was
EVERY = 1.5  # seconds between two pictures of the run, before it is played faster
LAST = 6.0  # seconds that the report stays
SIZE = 13  # of the font, in pixels
COLORS = {
    "default": "#d0d0d0", "black": "#808080", "red": "#e06c75", "green": "#98c379",
    "brown": "#e5c07b", "blue": "#61afef", "magenta": "#c678dd", "cyan": "#56b6c2",
    "white": "#ffffff",
}  # fmt: skip
BACKGROUND = "#1e1e1e"


def main() -> None:
    """Record the command, and write the picture."""
    screens = list(recorded(COMMAND))
    frames = [drawn(screen) for _, screen in screens]
    seconds = [seconds / SPEED for seconds, _ in screens]
    frames[0].save(
        TARGET, save_all=True, append_images=frames[1:], loop=0, optimize=True,
        duration=[round(1000 * each) for each in [*seconds[:-1], LAST]],
    )  # fmt: skip
    print(*(line.rstrip() for line in screens[-1][1].display), sep="\n")
    print(f"{TARGET}: {len(frames)} pictures, {TARGET.stat().st_size / 1000:.0f} kB")


def recorded(command: list[str]) -> Iterator[tuple[float, pyte.Screen]]:
    """Run a command in a terminal; yield each screen that differs, after how long it was shown."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {' '.join(command)}\r\n".encode())
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (LINES, COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, stdin=theirs, stdout=theirs,
            stderr=theirs, env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)
        shown, began = snapshot(screen), time.monotonic()
        while read(ours, stream):
            if snapshot(screen).display != shown.display:
                now = time.monotonic()
                yield now - began, shown
                shown, began = snapshot(screen), now
        yield time.monotonic() - began, snapshot(screen)
        if process.wait() != 0:
            raise SystemExit("\n".join(screen.display))


def read(terminal: int, stream: pyte.ByteStream) -> bool:
    """Feed what comes in the next moment; return whether more may come."""
    until = time.monotonic() + EVERY
    while (left := until - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            try:
                stream.feed(os.read(terminal, 65536))
            except OSError:  # the other end is closed
                return False
    return True


def snapshot(screen: pyte.Screen) -> pyte.Screen:
    """Return a copy of a screen that later output does not change."""
    copy = pyte.Screen(COLUMNS, LINES)
    for y, row in screen.buffer.items():
        copy.buffer[y].update(row)
    return copy


def drawn(screen: pyte.Screen) -> Image.Image:
    """Return a picture of a screen."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans Mono"), SIZE)
    width, height = font.getlength("M"), round(1.3 * SIZE)
    size = round(width * COLUMNS) + 2 * SIZE, height * LINES + 2 * SIZE
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for y in range(LINES):
        for x in range(COLUMNS):
            cell = screen.buffer[y][x]
            if cell.data.strip():
                color = COLORS.get(cell.fg) or (f"#{cell.fg}" if len(cell.fg) == 6 else "#d0d0d0")
                place = SIZE + x * width, SIZE + y * height
                draw.text(place, cell.data, font=font, fill=color)
    return picture.quantize(32)


if __name__ == "__main__":
    main()

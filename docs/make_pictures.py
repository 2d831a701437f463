"""The picture of a report in the README, taken by a real browser.

    python docs/make_pictures.py report.html                  a report that `ramify compare --out` wrote
    python docs/make_pictures.py runs/base runs/mine          or evaluated runs, which are compared first

Writes docs/images/report.png: the top of the page, 1280 pixels wide. Needs `pip install 'ramify[test]'` and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).resolve().parent / "images" / "report.png"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="one report (.html), or runs to compare")
    parser.add_argument("--out", type=Path, default=PICTURE, help="where it goes; default docs/images/report.png")
    parser.add_argument("--height", type=int, default=1000, help="pixels of the page that are shown; default 1000")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        take(report_of(asked.sources, Path(folder)), asked.out, asked.height)
    print(f"written: {asked.out}")


def report_of(sources: list[str], folder: Path) -> Path:
    """The report that was given, or one of the runs that were given."""
    if len(sources) == 1 and sources[0].endswith(".html"):
        return Path(sources[0])
    report = folder / "report.html"
    subprocess.run([sys.executable, "-m", "ramify", "compare", *sources, "--out", str(report)], check=True)
    return report


def take(report: Path, picture: Path, height: int) -> None:
    """A picture of the top of a page, as a browser shows it on a light background."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    found = next((path for name in NAMES if (path := shutil.which(name))), None)  # None: the one of playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()

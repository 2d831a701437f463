"""Shows a page whose models say what a file wants: python page_program.py FOLDER [USER:PASSWORD]

FOLDER/models.json is {name: {text, gate}}; a gate holds an answer back behind its first word until it is stopped. What
becomes of pages, models and answers is added to FOLDER/events.txt. With a user a second page is shown, behind a
password. They have a process of their own because Gradio leaves event loops and sockets open, which the tests of this
project take for errors.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from page_setup import Script, free_port, page_of

from ramify.serve.page.launch import Place, launch_page, show_page


def main() -> None:
    folder, users = Path(sys.argv[1]), [each.partition(":") for each in sys.argv[2:]]
    lock = threading.Lock()

    def say(event: str) -> None:
        with lock, (folder / "events.txt").open("a", encoding="utf-8") as file:
            file.write(f"{event}\n")

    models = json.loads((folder / "models.json").read_text(encoding="utf-8"))
    scripts = [
        Script(name, given["text"], threading.Event() if given.get("gate") else None, say=say)
        for name, given in models.items()
    ]
    page = page_of(folder, *scripts)
    place = Place(port=free_port(), auth=tuple((user, password) for user, _, password in users))
    blocks = launch_page(page, place) if users else None

    def shown(address: str) -> None:
        say(f"shown {address}")
        if blocks is not None:
            say(f"shown {blocks.local_url}")

    show_page(page, Place(port=free_port()), say=shown)


if __name__ == "__main__":
    main()

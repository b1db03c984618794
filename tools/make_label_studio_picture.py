"""docs/images/label_studio.png: the next task of a Label Studio project, as an annotator sees it.

After `label-studio-push`, with Chromium and the package playwright installed:

    LABEL_STUDIO_PASSWORD=... python tools/make_label_studio_picture.py http://127.0.0.1:8080 me@example.org 1
"""

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="Address of the server")
    parser.add_argument("user", help="E-mail address of a user, whose password is in LABEL_STUDIO_PASSWORD")
    parser.add_argument("project", type=int, help="Number of the project")
    parser.add_argument("--output", type=Path, default=Path("docs/images/label_studio.png"))
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 1000, "height": 640})
        page.set_default_timeout(120_000)
        page.goto(f"{args.url}/user/login/")
        page.fill("input[name=email]", args.user)
        page.fill("input[name=password]", os.environ["LABEL_STUDIO_PASSWORD"])
        page.click("button[type=submit]")
        page.wait_for_load_state("networkidle")
        page.goto(f"{args.url}/projects/{args.project}/data?labeling=1")
        page.wait_for_selector("text=Submit")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=args.output)
        browser.close()
    print(f"Wrote {args.output}")


if __name__ == "__main__":
    main()

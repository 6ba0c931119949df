"""Look at the decks and the site in a headless Chromium: `python tests/browser_pages.py`, after `make slides site`.

Checks that nothing runs off a slide, that every page of the site fits a phone, that the site finds words and keeps
figures on white when it is dark, and that nothing is asked of the network. Leaves pictures in runs/browser-pages/.
"""

import itertools
import sys
from pathlib import Path

from browser import FLAGS, find_browser
from playwright.sync_api import Page, sync_playwright

from covid_utils.core.files import PROJECT

FOLDER = PROJECT / "runs" / "browser-pages"
SLIDES, SITE = PROJECT / "build" / "slides", PROJECT / "build" / "site"
LOOK = """(slide) => {
    const frame = slide.getBoundingClientRect(), inside = (each) => {
        const box = each.getBoundingClientRect();
        const whole = each.scrollWidth <= each.clientWidth + 1;
        return whole && box.right <= frame.right + 1 && box.bottom <= frame.bottom + 1;
    };
    const outside = [...slide.querySelectorAll('p, li, pre, table, img, h1, h2')].filter(
        (each) => each.offsetParent && !each.closest('aside') && !inside(each));
    return outside.map((each) => each.textContent.slice(0, 60) || each.alt);
}"""
SHOWN = ("index", "api", "glossary", "results", "04_cam")
COLOURS = "[document.body, document.querySelector('article img')].map((each) => getComputedStyle(each).backgroundColor)"


def look_at_deck(page: Page, path: Path) -> str:
    """Go through a deck. Returns what was seen."""
    page.goto(path.as_uri())
    page.wait_for_function("() => window.Reveal?.isReady()")
    count = page.evaluate("Reveal.getTotalSlides()")
    for number in range(1, count + 1):
        outside = page.evaluate(f"() => ({LOOK})(Reveal.getCurrentSlide())")
        assert not outside, f"{path.name}, slide {number}: runs off: {outside}"
        if number % 7 == 2:
            page.screenshot(path=FOLDER / f"{path.stem}-{number:02}.png")
        page.evaluate("Reveal.next()")
    return f"{count} slides"


def look_at_site(page: Page) -> str:
    """Some pages at three widths, light and dark, all on a phone; a tick, a search. Returns what was seen."""
    paths = sorted(SITE.rglob("*.html"))
    for width, scheme in itertools.product((1440, 820, 390), ("light", "dark")):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        for path in paths:
            if path.stem in SHOWN or (width, scheme) == (390, "dark"):
                page.goto(path.as_uri())
                needed = page.evaluate("document.documentElement.scrollWidth")
                assert needed <= width, f"{path.name} needs {needed} of {width} pixels"
            if path.stem in SHOWN:
                page.screenshot(path=FOLDER / f"{path.stem}-{width}-{scheme}.png")
    page.goto((SITE / "notebooks" / "01_data.html").as_uri())
    around, behind = page.evaluate(COLOURS)
    assert around != behind == "rgb(255, 255, 255)", (around, behind)
    assert page.locator("a.read").count() == 0
    page.locator("footer").scroll_into_view_if_needed()
    page.wait_for_selector("a.read[href*='01_data'], .current-page a.read", state="attached")
    page.goto(f"{(SITE / 'search.html').as_uri()}?q=leakage")
    page.wait_for_selector("#search-results li a[href*='glossary']", timeout=30_000)
    return f"{len(paths)} pages"


def main() -> int:
    decks, asked = sorted(SLIDES.glob("*.html")), []
    assert decks and (SITE / "index.html").exists(), "run make slides site before"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
        page.on("request", lambda request: asked.append(request.url))
        for path in decks:
            print(f"{path.name}: {look_at_deck(page, path)}", flush=True)
        print(f"The site: {look_at_site(page)}", flush=True)
    abroad = [url for url in asked if not url.startswith(("file:", "data:", "about:"))]
    assert asked and not abroad, f"The network is asked for {abroad}"
    print(f"Pictures: {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

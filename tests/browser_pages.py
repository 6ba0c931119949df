"""Look at the decks and the site in a headless Chromium: `python tests/browser_pages.py`, after `make slides site`.

Checks that nothing runs off a slide, on the screen and in print, that every page of the site fits a phone, finds words
and keeps figures on white when it is dark, and that nothing is asked of the network. Leaves pictures in
runs/browser-pages/.
"""

import sys
from pathlib import Path

from browser import FLAGS, find_browser
from playwright.sync_api import BrowserContext, Page, sync_playwright

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
    const code = [...slide.querySelectorAll('pre, td, p, li')].filter((each) => each.offsetParent);
    return {
        outside: outside.map((each) => each.textContent.slice(0, 60) || each.alt),
        smallest: Math.min(99, ...code.map((each) => parseFloat(getComputedStyle(each).fontSize))),
        picture: Math.min(...[...slide.querySelectorAll('img')].map((each) => each.clientHeight), 999),
    };
}"""


def look_at_deck(page: Page, path: Path) -> str:
    """Go through a deck. Returns what was seen."""
    page.goto(path.as_uri())
    page.wait_for_function("() => window.Reveal?.isReady()")
    count, smallest = page.evaluate("Reveal.getTotalSlides()"), 99
    for number in range(1, count + 1):
        seen = page.evaluate(f"() => ({LOOK})(Reveal.getCurrentSlide())")
        assert not seen["outside"], f"{path.name}, slide {number}: runs off: {seen['outside']}"
        assert seen["smallest"] >= 14, f"{path.name}, slide {number}: letters of {seen['smallest']} pixels"
        assert seen["picture"] >= 260, f"{path.name}, slide {number}: a figure of {seen['picture']} pixels"
        smallest = min(smallest, seen["smallest"])
        if number % 7 == 2:
            page.screenshot(path=FOLDER / f"{path.stem}-{number:02}.png")
        page.evaluate("Reveal.next()")
    page.goto(f"{path.as_uri()}?print-pdf")
    page.wait_for_selector(".pdf-page img")
    page.wait_for_timeout(1000)
    printed = page.evaluate(f"() => [...document.querySelectorAll('.pdf-page section')].map({LOOK})")
    assert len(printed) == count and not any(seen["outside"] for seen in printed), f"{path.name}: printed, it runs off"
    return f"{count} slides, smallest letters {smallest:.0f} px of 720"


def look_at_site(context: BrowserContext, scheme: str) -> str:
    """Every page on a phone, some in pictures, a search. Returns what was seen."""
    page, paths = context.new_page(), sorted(SITE.rglob("*.html"))
    page.emulate_media(color_scheme=scheme)
    for path in paths:
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(path.as_uri())
        name = path.relative_to(SITE).with_suffix("").as_posix()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{name} is {width} pixels wide on a phone of 390"
        if name in ("index", "docs/api", "docs/glossary", "notebooks/04_cam"):
            for width in (390, 1280):
                page.set_viewport_size({"width": width, "height": 900})
                page.screenshot(path=FOLDER / f"{path.stem}-{scheme}-{width}.png")
    page.goto((SITE / "notebooks" / "01_data.html").as_uri())
    colours = (
        "[document.body, document.querySelector('article img')].map((each) => getComputedStyle(each).backgroundColor)"
    )
    around, behind = page.evaluate(colours)
    assert behind == "rgb(255, 255, 255)" and (around == behind) == (scheme == "light"), (around, behind)
    page.goto(f"{(SITE / 'search.html').as_uri()}?q=leakage")
    page.wait_for_selector("#search-results li a[href*='glossary']", timeout=30_000)
    page.close()
    return f"{len(paths)} pages, {scheme}"


def main() -> int:
    browser, decks = find_browser(), sorted(SLIDES.glob("*.html"))
    assert decks and (SITE / "index.html").exists(), "run make slides site before"
    FOLDER.mkdir(parents=True, exist_ok=True)
    asked, complaints = [], []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch(executable_path=browser, args=FLAGS).new_context(
            viewport={"width": 1280, "height": 720}
        )
        context.on("request", lambda request: asked.append(request.url))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        page = context.new_page()
        for path in decks:
            print(f"{path.name}: {look_at_deck(page, path)}", flush=True)
        for scheme in ("light", "dark"):
            print(f"The site: {look_at_site(context, scheme)}", flush=True)
    abroad = [url for url in asked if not url.startswith(("file:", "data:", "about:"))]
    assert asked and not abroad, f"The network is asked for {abroad}"
    # a browser lets a file read no other file: a search then shows titles without a line of each page
    assert set(complaints) <= {"Failed to fetch"}, complaints
    print(f"Pictures: {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

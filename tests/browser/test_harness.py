"""The tabs of these tests notice what goes wrong on a page."""

from __future__ import annotations

from tests.browsing.tab import Tab


async def test_a_tab_notes_errors_blocked_content_and_failed_requests(tab: Tab) -> None:
    await tab.open("/livez")
    assert tab.troubles == []
    await tab.page.set_content("<img src='/nothing-here.png'><script>throw new Error('broken')</script>")
    await tab.page.evaluate("console.error('said')")
    await tab.page.wait_for_load_state("networkidle")
    for part in ("status 404", "exception: broken", "error: said"):
        assert any(part in trouble for trouble in tab.troubles), (part, tab.troubles)
    assert tab.unexpected == tab.troubles
    tab.expect("404", "broken", "said")
    assert tab.unexpected == []

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


async def test_a_tab_notes_what_the_content_security_policy_blocks(tab: Tab) -> None:
    await tab.open("/console/login")
    assert tab.troubles == []
    await tab.page.evaluate("document.body.setAttribute('style', 'color: red')")
    await tab.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: '1'}))")
    assert sum("Content Security Policy" in trouble for trouble in tab.troubles) >= 2, tab.troubles
    tab.expect("Content Security Policy")

"""The chat panel by keyboard, with a screen reader, in both themes and in a narrow space."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from browser.panel import focused_name, wait
from chat_server import Reply, error_reply
from promptkit_nb import DiskStore, Message, Turn

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from browser.panel import PanelDesk
    from chat_server import ChatServer

pytestmark = pytest.mark.browser

MARKDOWN = '''# Heading

A [link](http://link.invalid) and `code`, with $\\frac{a}{b}$:

> quoted

| a | b |
| --- | --- |
| 1 | 2 |

```python
@decorated  # a comment
def named(text: str = "text", number: float = 1.5e3) -> None:
    """Return nothing."""
    raise ValueError(f"no {text!r}") if number != 0x10 else None
```
'''

VALUE = json.dumps({"label": "bug", "reason": "long" * 60, "name" * 20: [1, None]})
TYPED = Turn(messages=(Message("user", "Classify it."), Message("assistant", VALUE)), value_json=VALUE)

# Every text with a contrast of less than 4.5 to 1 against its background, as WCAG 2 defines it.
LOW_CONTRASTS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const painted = colors => {
        canvas.clearRect(0, 0, 1, 1);
        for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const linear = part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const luminance = ([red, green, blue]) =>
        0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
    const low = [];
    const look = (element, color, text) => {
        const grounds = [];
        for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
        const both = [painted(grounds), painted([...grounds, color])].map(luminance);
        const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        if (ratio < 4.5) low.push([text.trim().slice(0, 30), element.className, color, ratio]);
    };
    for (const element of document.querySelectorAll('.promptkit-panel *')) {
        if (element.disabled || !element.checkVisibility()) continue;
        const text = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data).join('');
        if (text.trim()) look(element, getComputedStyle(element).color, text);
        if (element.placeholder) look(element, getComputedStyle(element, '::placeholder').color, element.placeholder);
    }
    return low;
}"""
# Elements that are wider than the panel or scroll sideways; tables, code and formulas have their own scrollbars.
TOO_WIDE = """() => {
    const panel = document.querySelector('.promptkit-panel'), edge = panel.getBoundingClientRect().right;
    return [panel, ...panel.querySelectorAll('*')]
        .filter(each => !each.closest('.promptkit-markdown') && each.checkVisibility() && each.clientWidth > 1)
        .filter(each => each.getBoundingClientRect().right > edge || each.scrollWidth > each.clientWidth + 1)
        .map(each => each.className || each.localName);
}"""
UNNAMED = """() => [...document.querySelectorAll('.promptkit-panel :is(button, select, input, textarea)')]
    .filter(each => !(each.ariaLabel || each.textContent).trim()).map(each => each.outerHTML)"""


def use_theme(page: Page, theme: str) -> None:
    """Switch JupyterLab to a theme."""
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    page.wait_for_timeout(500)  # for its style sheet


def test_no_key_reaches_the_notebook(desk: PanelDesk, chat_server: ChatServer) -> None:
    """Wherever the focus is in the panel, keys do not create, delete or run cells, and do not hide the sidebar."""
    notebook, panel = desk.opened("print('second')")
    panel.say("Hello")
    panel.hears("You said: Hello")
    wait(panel.is_idle)

    def state() -> dict[str, Any]:
        seen: dict[str, Any] = notebook.in_page("""{
            cells: notebook.content.widgets.map(({model}) => [model.type, model.executionCount]),
            mode: notebook.content.mode,
            sidebarIsHidden: jupyterapp.shell.leftCollapsed,
            dialogs: document.querySelectorAll('.jp-Dialog').length,
        }""")
        return seen

    before = state()
    for place in (panel.box, panel.log, panel.chooser, panel.button("Copy").first):
        place.focus()
        named = focused_name(desk.page)
        for key in ("Control+Enter", "Alt+Enter", "Control+b", "a", "b", "d", "d", "x", "z", "m", "0", "0", "Shift+M"):
            desk.page.keyboard.press(key)
            place.focus()
        assert state() == before, named
    assert panel.box.input_value() == "abddxzm00M"
    panel.box.press("Shift+Enter")
    assert state() == before
    assert notebook.outputs(2) == []
    assert panel.questions() == ["Hello"]


def test_input_methods_and_screen_readers(desk: PanelDesk, chat_server: ChatServer) -> None:
    """Enter during a composition sends nothing, all controls have names, and the regions are live."""
    _, panel = desk.opened()
    panel.box.fill("にほ")
    for key, code in (("Enter", 13), ("Enter", 229), ("Escape", 27)):
        panel.box.dispatch_event("keydown", {"key": key, "isComposing": True, "keyCode": code, "bubbles": True})
    desk.page.wait_for_timeout(500)
    assert panel.box.input_value() == "にほ"
    assert chat_server.requests == []
    chat_server.reply(Reply(text="one two three", pause_s=0.3))
    panel.box.press("Enter")
    panel.log.get_by_text("one").wait_for()
    assert panel.log.get_attribute("aria-busy") == "true"
    assert focused_name(desk.page) == "Message"
    panel.hears("one two three")
    wait(panel.is_idle)
    assert panel.log.get_attribute("aria-busy") == "false"
    assert panel.log.get_attribute("aria-live") == "polite"
    assert desk.page.evaluate(UNNAMED) == []
    assert focused_name(desk.page) == "Message"


def test_contrast_and_narrow_space(desk: PanelDesk, chat_server: ChatServer) -> None:
    """In both themes every text has a contrast of at least 4.5 to 1, and at 400 pixels nothing overflows."""
    desk.page.set_viewport_size({"width": 1000, "height": 900})
    with DiskStore(desk.store) as store:
        store.append("panel-chat", TYPED)
    _, panel = desk.opened()
    chat_server.reply(Reply(text=MARKDOWN), error_reply(400, "refused"))
    panel.say(f"Format this: {'long' * 60}")
    panel.log.get_by_text("Heading").first.wait_for()
    wait(panel.is_idle)
    assert panel.log.get_by_text("Heading").count() == 1
    panel.say("and fail")
    panel.error.get_by_text("refused").wait_for()
    panel.button("Delete").click()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        use_theme(desk.page, theme)
        assert desk.page.evaluate(LOW_CONTRASTS) == [], theme
    panel.root.evaluate("root => { root.style.width = '400px'; }")
    assert desk.page.evaluate(TOO_WIDE) == []
    panel.log.get_by_role("cell", name="bug", exact=True).wait_for()
    assert panel.log.get_by_text(VALUE).count() == 0
    panel.button("Cancel").click()
    panel.box.fill("narrow")
    panel.button("Send").click()
    panel.hears("You said: narrow")
    assert desk.page.evaluate(TOO_WIDE) == []

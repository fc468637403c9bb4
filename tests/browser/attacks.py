"""Model texts that try to run a script in the reader's page, or to make the page fetch something.

``SCRIPT`` is JavaScript that leaves a mark; ``CANARY`` is the address of a server that must receive no request.
"""

from __future__ import annotations

import json

from promptkit_nb.turns import Message, ToolCall, Turn, Usage

SCRIPT = "window.pwned=1"
CANARY = "http://canary.invalid"

ATTACKS: dict[str, str] = {
    # Script, as HTML in the Markdown.
    "script": f"<script>{SCRIPT}</script>",
    "script in a paragraph": f"Hello <script>{SCRIPT}</script> world",
    "script from elsewhere": f'<script src="{CANARY}/script.js"></script>',
    "img onerror": f'<img src="x" onerror="{SCRIPT}">',
    "img onerror, unfinished": f'<img src="x" onerror="{SCRIPT}" ',
    "svg onload": f'<svg onload="{SCRIPT}"><animate onbegin="{SCRIPT}" attributeName="x" dur="1s"/></svg>',
    "svg script": f"<svg><script>{SCRIPT}</script></svg>",
    "details ontoggle": f'<details open ontoggle="{SCRIPT}">x</details>',
    "input autofocus": f'<input autofocus onfocus="{SCRIPT}">',
    "iframe srcdoc": f'<iframe srcdoc="<script>parent.{SCRIPT}</script>"></iframe>',
    "iframe javascript": f'<iframe src="javascript:parent.{SCRIPT}"></iframe>',
    "button": f'<button onclick="{SCRIPT}">Run</button>',
    "form": f'<form action="javascript:{SCRIPT}"><button>Send</button></form>',
    "form to elsewhere": f'<form action="{CANARY}/form"><button>Send</button></form>',
    "command link": '<a href="#" data-commandlinker-command="help:about" data-commandlinker-args="{}">x</a>',
    "meta refresh": f'<meta http-equiv="refresh" content="0;url={CANARY}/refresh">',
    "base": f'<base href="{CANARY}/">',
    # Script, as links.
    "javascript link": f"[x](javascript:{SCRIPT})",
    "javascript link, upper case": f"[x](JaVaScRiPt:{SCRIPT})",
    "javascript link, entities": f"[x](&#106;avascript&colon;{SCRIPT})",
    "javascript link, tab": f"[x](<java\tscript:{SCRIPT}>)",
    "javascript link, control character": f"[x](<\x01javascript:{SCRIPT}>)",
    "javascript link, percent": f"[x](%6Aavascript:{SCRIPT})",
    "javascript autolink": f"<javascript:{SCRIPT}>",
    "javascript by reference": f"[x]\n\n[x]: javascript:{SCRIPT}",
    "javascript footnote": f"x[^1]\n\n[^1]: javascript:{SCRIPT}",
    "javascript anchor": f'<a href="javascript:{SCRIPT}">x</a>',
    "vbscript link": f"[x](vbscript:{SCRIPT})",
    "data link": f"[x](data:text/html,<script>opener.{SCRIPT}</script>)",
    "data link, base64": "[x](data:text/html;base64,PHNjcmlwdD5vcGVuZXIucHduZWQ9MTwvc2NyaXB0Pg==)",
    "blob link": "[x](blob:http://127.0.0.1/x)",
    "link title breaks out": f"[x](http://link.invalid '\" onmouseover=\"{SCRIPT}')",
    "link address breaks out": f'[x](http://link.invalid/"onmouseover="{SCRIPT})',
    "link of this server": "[x](/lab?reset) [y](files/secret.txt) [z](#main)",
    # Requests.
    "remote image": f"![alternative]({CANARY}/markdown.png)",
    "remote image by reference": f"![alternative][i]\n\n[i]: {CANARY}/reference.png",
    "remote image without scheme": f"![alternative](//{CANARY[7:]}/scheme.png)",
    "remote image in a link": f"[![alternative]({CANARY}/linked.png)](http://link.invalid)",
    "remote image, HTML": f'<img src="{CANARY}/html.png" srcset="{CANARY}/set.png 2x">',
    "svg image": f"![x](data:image/svg+xml,<svg onload={SCRIPT}>)",
    "svg image, base64": "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9InBhcmVudC5wd25lZD0xIi8+)",
    "image of svg": f'<svg><image href="{CANARY}/image.png"/><use href="{CANARY}/use.svg#x"/></svg>',
    "picture": f'<picture><source srcset="{CANARY}/source.png"><img></picture>',
    "video": f'<video src="{CANARY}/video" poster="{CANARY}/poster" autoplay></video><audio src="{CANARY}/a" autoplay>',
    "object": f'<object data="{CANARY}/object"></object><embed src="{CANARY}/embed">',
    "link element": f'<link rel="stylesheet" href="{CANARY}/style.css"><link rel="prefetch" href="{CANARY}/prefetch">',
    "import": f"<style>@import '{CANARY}/import.css'; body{{background:url({CANARY}/background)}}</style>",
    "style attribute": f'<p style="background:url({CANARY}/attribute)">x</p>',
    "background attribute": f'<table background="{CANARY}/table"><td background="{CANARY}/cell">x</td></table>',
    "iframe": f'<iframe src="{CANARY}/iframe"></iframe>',
    "ping": f'<a href="http://link.invalid" ping="{CANARY}/ping">x</a>',
    "autolink": "<http://link.invalid/auto> and http://link.invalid/bare",
    # The page.
    "overlay": '<div style="position:fixed;inset:0;z-index:99999;background:red">Sign in</div>',
    "clobbering": '<a id="jupyterapp" name="cookie"></a><form id="document"></form>',
    # Texts that become markup only after being parsed, sanitized and parsed again.
    "noscript": f'<noscript><p title="</noscript><img src=x onerror={SCRIPT}>">',
    "template": f"<template><script>{SCRIPT}</script></template><div><template shadowrootmode=open><img src=x>",
    "title": f'<title><a title="</title><img src=x onerror={SCRIPT}>"></title>',
    "textarea": f'<textarea><img title="</textarea><img src=x onerror={SCRIPT}>">',
    "mglyph": f"<math><mtext><table><mglyph><style><img src=x onerror={SCRIPT}></style></mglyph></table></mtext>",
    "annotation": f'<math><annotation-xml encoding="text/html"><img src=x onerror="{SCRIPT}"></annotation-xml></math>',
    "maction": f'<math><maction actiontype="statusline#x" href="javascript:{SCRIPT}">x</maction></math>',
    "comment": f"<!--><img src=x onerror={SCRIPT}>--> <!-- --!><img src=x onerror={SCRIPT}>",
    "cdata": f"<![CDATA[<img src=x onerror={SCRIPT}>]]> <?php <img src=x onerror={SCRIPT}> ?>",
    "foreign": f'<svg></p><style><a id="</style><img src=x onerror={SCRIPT}>">',
    # Formulas.
    "href": rf"$\href{{javascript:{SCRIPT}}}{{x}}$ \(\href{{javascript:{SCRIPT}}}{{x}}\)",
    "href in display": f"$$\n\\href{{javascript:{SCRIPT}}}{{x}}\n$$",
    "href without delimiters that we know": rf"\begin{{equation}}\href{{javascript:{SCRIPT}}}{{x}}\end{{equation}}",
    "href in escaped dollars": rf"\$\href{{javascript:{SCRIPT}}}{{x}}\$ &#36;\href{{javascript:{SCRIPT}}}{{x}}&#36;",
    "unicode": rf"$\unicode{{<img src=x onerror={SCRIPT}>}}$ $\unicode{{x3C}}img src=x onerror={SCRIPT}>$",
    "style in a formula": rf"$\style{{background:url({CANARY}/formula)}}{{x}} \class{{jp-Dialog}}{{y}}$",
    "text in a formula": rf"$\text{{<img src=x onerror={SCRIPT}>}} \mbox{{<script>{SCRIPT}</script>}}$",
    "escaped text in a formula": rf"$\text{{&lt;img src=x onerror={SCRIPT}&gt;}}$",
    "color of a formula": rf'$\color{{red" onmouseover="{SCRIPT}}} x \textcolor{{url({CANARY}/color)}}{{y}}$',
    "broken formula": rf"$\frac{{<img src=x onerror={SCRIPT}>}}{{$",
    # Code and tables.
    "info string": f'```"><img src=x onerror={SCRIPT}>\ncode\n```',
    "info string with an attribute": f'```python" onmouseover="{SCRIPT}\ncode\n```',
    "code": f"```html\n</code></pre><img src=x onerror={SCRIPT}>\n```",
    "code of no known language": f"```nope\n</code></pre><script>{SCRIPT}</script>\n```",
    "inline code": f"`</code><img src=x onerror={SCRIPT}>`",
    "table cell": f"| a |\n|---|\n| <img src=x onerror={SCRIPT}> [x](javascript:{SCRIPT}) |",
    "alternative text": f'![" onerror="{SCRIPT}](data:image/png;base64,AAAA) ![<script>{SCRIPT}</script>](http://x.invalid)',
    "image address breaks out": f'![x](data:image/png;base64,AAAA"onerror="{SCRIPT})',
}


def hostile_value(attacks: list[str]) -> Turn:
    """Return a turn with a typed answer that has the attacks in its keys and values."""
    value = {attack: [attack, {attack: attack}] for attack in attacks}
    messages = (Message("user", "Extract."), Message("assistant", json.dumps(value)))
    return Turn(messages=messages, value_json=json.dumps(value), finish_reason="stop")


def hostile(attack: str) -> Turn:
    """Return a turn with the attack in every field that a page can show."""
    return Turn(
        messages=(
            Message("user", attack),
            Message("assistant", attack, reasoning=attack, tool_calls=(ToolCall(attack, attack, attack),)),
            Message("tool", attack, tool_call_id=attack, name=attack),
            Message("assistant", attack),
        ),
        usage=Usage(1, 1),
        model=attack,
        provider=attack,
        finish_reason=attack,
        warnings=(attack,),
    )

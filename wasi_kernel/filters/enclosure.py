"""Active HTML in a frame of its own: it does not reach the page, loads nothing, runs when asked to.

Pure. Two frames, one in the other, each with `sandbox` (an origin of its own, no cookies, storage,
forms, pop-ups, dialogs, downloads, top navigation) with the document in `srcdoc`, and the policy as
the first thing in its head:

- The policy alone does not keep a frame from *navigating itself* (`location = "https://..."`, a
  meta refresh, a clicked link), which is a request with anything in its address. `frame-src` does,
  but it binds the document that contains the frame: hence the outer one, whose only content is the
  inner. Seen in Chromium 156: with one frame three such requests arrived, with two none. The
  contents of a `srcdoc` are no request, so `frame-src 'none'` lets them be (HTML, "navigate").
- A navigation by script (`location`, a click on a link by script) is refused, but Chromium 156
  looks the host up and connects to it first, and a name that is looked up carries data. It does so
  before any policy is asked (content's NavigationRequest, in its constructor); only the page's own
  HTTP header `Connection-Allowlist` ends it. No script can guard the location of a window,
  and the navigation API has no events for an opaque origin. Hence no script runs by itself: the
  inner frame is shown without `allow-scripts`, below a bar of the outer one's, whose button gives
  it that. A frame that `runs` has it from the start, and no bar: `frontend = "interactive"`.
- No policy ends WebRTC (`webrtc` is unknown to Chromium 156: a STUN request and a DNS lookup of a
  chosen name left the frame) nor `<link rel=preconnect>` and `rel=dns-prefetch`, nor voices that a
  browser has fetched. A script of ours runs first: it takes the constructors away, and keeps
  elements that would bring fresh ones (frames) or load in advance (links) from being made; Trusted
  Types bring every string that becomes HTML before it. What it uses it holds itself, as later
  scripts may replace every builtin.
  Browsers without Trusted Types (Firefox before 148, Safari before 26) lack that part.
- Nothing keeps a frame from posting messages to the windows around it (`top` cannot be redefined).
  JupyterLab 4.6 listens to none. VS Code's notebook does, and does not look who sends them
  (webviewPreloads.ts): there it could bring HTML into the view that holds all outputs.
- `'unsafe-eval'` gives nothing here that inline scripts have not, and vega needs it.

Height: content without a script of ours in it cannot fit its frame, so it is guessed from what the
source says of heights, and the user can drag it. JupyterLab's sanitizer (apputils'
sanitizer.ts, 4.6) drops frames of notebooks that are not trusted and keeps the text in them:
that is what FALLBACK is for.
"""

from __future__ import annotations

import re
from html import escape
from typing import NamedTuple

from wasi_kernel.filters import css

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data: blob:; font-src data:; connect-src 'none'; "
    "frame-src 'none'; child-src 'none'; worker-src 'none'; object-src 'none'; "
    "manifest-src 'none'; form-action 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types default"
)
FALLBACK = "Interactive output of a sandbox: it is shown once the notebook is trusted."

BARRED = ("iframe", "frame", "object", "embed", "link", "meta", "fencedframe")
"""Elements that bring a window of their own, or load in advance; frameset begins with frame. Of a
meta refresh Chromium 156 looks up and connects to the address before the policy refuses to go."""

MIN_HEIGHT, DEFAULT_HEIGHT, MAX_HEIGHT = 60, 450, 1200
"""Pixels. The default is plotly's (plotly.js 3, layout.height)."""

BAR = 32
"""Pixels, the height of the bar with the button."""

WAIT_MS = 400
"""Until the button can be pressed: a click that was meant for something else does not start it."""

_GUARD = """\
(()=>{"use strict";
const call=Function.prototype.call,free=f=>call.bind(f),apply=Reflect.apply,
low=free("".toLowerCase),find=free("".indexOf),cut=free("".slice),names=[%s],
inTag=(s,k)=>{for(;k>=0&&s[k]!=="<";k--)if(find(" \\t\\n\\f\\r/>\\"'=",s[k])>=0)return false;
return k>=0},
mend=html=>{let s=""+html,l=low(s);if(l.length!==s.length)return "";
const put=(what,at,any)=>{for(let k=0;(k=find(l,what,k))>=0;k+=3){if(any||inTag(l,k)){
const j=k+at;s=cut(s,0,j)+"x-"+cut(s,j);l=cut(l,0,j)+"x-"+cut(l,j)}}};
put("<!entity",2,true);
for(let i=0;i<names.length;i++){put("<"+names[i],1,true);put("</"+names[i],2,true);
put(":"+names[i],1,false)}
return s},
barred=n=>{const l=low(n);for(let i=0;i<names.length;i++)
if(find(l,names[i])===0||find(l,":"+names[i])>=0)return names[i];return ""},
own=(o,n,f)=>{if(o&&o[n])Object.defineProperty(o,n,{value:f(o[n])})},
named=i=>f=>function(...a){if(a.length>i){a[i]=""+a[i];const n=barred(a[i]);if(n)a[i]="x-"+n}
return apply(f,this,a)};
const T=self.trustedTypes;
if(T){T.createPolicy("default",{createHTML:mend,createScript:s=>s,createScriptURL:s=>s});
own(TrustedTypePolicyFactory.prototype,"createPolicy",()=>(name,rules)=>({name,
createHTML:(...a)=>rules.createHTML(...a),createScript:(...a)=>rules.createScript(...a),
createScriptURL:(...a)=>rules.createScriptURL(...a)}))}
own(Document.prototype,"createElement",named(0));
own(Document.prototype,"createElementNS",named(1));
own(DOMImplementation.prototype,"createDocument",named(1));
own(CustomElementRegistry.prototype,"define",f=>function(n,c){return apply(f,this,[n,c])});
const write=()=>function(...a){for(let i=0;i<a.length;i++)
(this.body||this.documentElement).insertAdjacentHTML("beforeend",a[i])};
own(Document.prototype,"write",write);own(Document.prototype,"writeln",write);
for(const [o,n] of [[Element.prototype,"setHTML"],[ShadowRoot.prototype,"setHTML"],
[Document,"parseHTML"]])own(o,n,()=>undefined);
for(const n of Object.getOwnPropertyNames(self))
if(/^(webkit|moz)?(RTC|Speech)|^(XSLTProcessor|speechSynthesis)$/.test(n))delete self[n];
})();"""
GUARD = " ".join((_GUARD % ",".join(f'"{name}"' for name in BARRED)).split("\n"))

_HEAD = (
    f'<!DOCTYPE html><html><head><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    '<meta http-equiv="x-dns-prefetch-control" content="off"><meta charset="utf-8">'
)
_OUTER = (
    f"{_HEAD}<style>html,body{{margin:0;height:100%;overflow:hidden}}"
    "body{display:flex;flex-direction:column}iframe{border:0;width:100%;flex:1;min-height:0}"
    f"#bar{{font:13px sans-serif;height:{BAR}px;box-sizing:border-box;padding:4px;color:#444;"
    "background:#f2f2f2;white-space:nowrap;overflow:hidden}button{font:inherit}</style></head><body>"
)
_BAR = (
    '<div id="bar"><button disabled title="They can reach neither the page nor the network, but a '
    "browser may look up names of hosts that they make up. Run them if you trust what you run."
    '">Run scripts</button> This output of the sandbox has scripts.</div>'
)
_RUN = (
    '<script>"use strict";const bar=document.getElementById("bar"),[button]=bar.children,'
    'frame=document.querySelector("iframe");'
    'button.onclick=()=>{bar.remove();frame.sandbox="allow-scripts";document.body.append(frame)};'
    f"setTimeout(()=>{{button.disabled=false}},{WAIT_MS})</script>"
)
"""A frame that is put elsewhere loads anew, then with the sandbox that it has by now."""

_INNER = f"{_HEAD}<script>{GUARD}</script><style>body{{font-family:sans-serif}}</style>"

_BARRED = re.compile(rf"<(/?)(?={'|'.join(BARRED)})", re.IGNORECASE)
_DOCUMENT = re.compile(
    r"(?:\s|(?><!--.*?-->))*+<(?:!doctype|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_HEIGHT = re.compile(
    r"(?<![\w-])(?:min-)?height[\"']?\s*[:=]\s*[\"']?(\d{2,5})(?:\.\d+)?(?=px|[\"',;}\s>])",
    re.IGNORECASE,
)
_SCRIPTS = re.compile(r"</?script\b", re.IGNORECASE)
_SHOWS = re.compile(r"element|document|append|html|canvas|svg|height", re.IGNORECASE)
"""What a script that shows something is likely to say; most that are displayed show nothing."""

_ACTS = re.compile(r"<script|\bon[a-z]+\s*=|javascript:", re.IGNORECASE)
"""What may run. A script that this does not find is not run; nothing worse happens."""

_DRAWS = re.compile(r"<(?:canvas|svg)\b", re.IGNORECASE)
_LINES = re.compile(r"<(?:tr|p|li|div|br|h[1-6]|dt|button|option)\b", re.IGNORECASE)
LIBRARY = 100_000
"""Characters from which on a script is a library, whose heights say nothing of this output."""

_FRAME = re.compile(
    r'<div style="height:[0-9]{2,4}px[^"<>]*">'
    r'<iframe sandbox="allow-scripts" style="[^"<>]*" srcdoc=(["\'])(.*)\1>'
    rf"{re.escape(FALLBACK)}</iframe></div>",
    re.DOTALL,
)


class Frame(NamedTuple):
    """A frame of ours.

    Attributes:
        inner: What is in it, as it stands there.
        height: In pixels.
        runs: Do its scripts run without being asked to?
    """

    inner: str
    height: int
    runs: bool


def enclosed(html: str, *, note: str = "", height: int = 0, runs: bool = False) -> str:
    """`html`, a fragment or a document, in its frame. The same arguments give the same frame.

    Args:
        html: What is to be seen in it, and to run.
        note: Plain text above it, to be seen in the frame too.
        height: Of the content in pixels; 0 to guess.
        runs: Do its scripts run without being asked to?
    """
    inner = _BARRED.sub(r"<\1x-", html)
    if not _DOCUMENT.match(inner):  # a script of a fragment expects a body around it
        inner = "<body>" + inner
    if note:
        inner = f"<p>[wasi-kernel] {escape(note)}</p>{inner}"
    height = max(MIN_HEIGHT, min(height or _height(html), MAX_HEIGHT))
    return framed(Frame(inner, height, runs))


def framed(frame: Frame) -> str:
    """The HTML of a frame."""
    few, many = sorted("\"'", key=frame.inner.count)  # what is written twice is escaped twice
    asks = not frame.runs and _ACTS.search(frame.inner) is not None
    inner = _escaped(_INNER + frame.inner, few)
    document = (
        f"{_OUTER}{_BAR if asks else ''}{_opening(frame.runs)}srcdoc={few}{inner}{few}></iframe>"
        f"{_RUN if asks else ''}{_CLOSING}"
    )
    height = frame.height + (BAR if asks else 0)
    return (
        f'<div style="height:{height}px;resize:vertical;overflow:hidden;box-sizing:border-box;'
        'padding-bottom:12px"><iframe sandbox="allow-scripts" style="width:100%;height:100%;'
        'border:0;display:block;background:#fff" '
        f"srcdoc={many}{_escaped(document, many)}{many}>{FALLBACK}</iframe></div>"
    )


_CLOSING = "</body></html>"


def _opening(runs: bool) -> str:
    return f'<iframe sandbox="{"allow-scripts" if runs else ""}" '


def _escaped(text: str, quote: str) -> str:
    return text.replace("&", "&amp;").replace(quote, "&quot;" if quote == '"' else "&#39;")


def _unescaped(text: str) -> str:
    """What `_escaped` was given; of other text something that it would not write again so."""
    return text.replace("&quot;", '"').replace("&#39;", "'").replace("&amp;", "&")


def read(html: str) -> Frame | None:
    """The frame that `framed` gives this html for, to the letter; None if there is none."""
    match = _FRAME.fullmatch(html)
    if match is None:
        return None
    document = _unescaped(match[2])
    begin = document.removeprefix(_OUTER)
    asks = begin.startswith(_BAR)
    begin = begin.removeprefix(_BAR)
    runs = begin.startswith(_opening(runs=True))
    end = f"></iframe>{_RUN if asks else ''}{_CLOSING}"
    start = len(_opening(runs)) + len("srcdoc=")
    inner = _unescaped(begin[start + 1 : -len(end) - 1])
    if not inner.startswith(_INNER):
        return None
    inner = inner[len(_INNER) :]
    height = int(html[len('<div style="height:') :].split("px", 1)[0]) - (BAR if asks else 0)
    frame = Frame(inner, height, runs)
    fits = MIN_HEIGHT <= height <= MAX_HEIGHT and _BARRED.search(inner) is None
    return frame if fits and framed(frame) == html else None


def _height(html: str) -> int:
    """A guess, in pixels, at how high the content is."""
    own = [part for part in _SCRIPTS.split(css.split_sheets(html)[0]) if len(part) < LIBRARY]
    said = [int(m[1]) for part in own for m in _HEIGHT.finditer(part)]
    said = [height for height in said if height <= MAX_HEIGHT]
    if said:
        return max(said) + 40
    if len(own) > 1 or _DRAWS.search(html):
        return DEFAULT_HEIGHT
    return min(40 + 26 * len(_LINES.findall(html)), DEFAULT_HEIGHT)


def script(source: str, *, runs: bool = False) -> str:
    """JavaScript in its frame; `element` is what it may draw into, as notebooks promise."""
    closed = re.sub(r"<(?=/script|!--)", r"\\x3c", source, flags=re.IGNORECASE)
    height = 0 if _SHOWS.search(source) else MIN_HEIGHT
    return enclosed(
        f"<script>const element = document.body;</script><script>{closed}</script>",
        height=height, runs=runs,
    )  # fmt: skip

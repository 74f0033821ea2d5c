"""Write one self-contained page about an evaluation, for the shop owner, the engineer and the researcher.

``SECTIONS`` is in page order. A section takes :class:`mixtura.report.parts.PageContext` and returns
:class:`mixtura.report.parts.Section`, or ``None`` if the evaluation has nothing for it.
"""

SECTIONS = {
    "summary": "mixtura.report.summary:summary",
    "classes": "mixtura.report.classes:classes",
    "confusion": "mixtura.report.confusion:confusion",
    "probability": "mixtura.report.probability:probability",
    "unknown": "mixtura.report.unknown:unknown",
    "map": "mixtura.report.map:embedding_map",
    "subclasses": "mixtura.report.subclass_map:subclass_map",
    "mistakes": "mixtura.report.mistakes:mistakes",
    "facts": "mixtura.report.facts:facts",
}

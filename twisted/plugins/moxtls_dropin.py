"""
Make C{twistd moxtls} exist.
"""

from twisted.application.service import ServiceMaker

moxtls = ServiceMaker(
    "moxtls",
    "moxtls.tap",
    "Mail transfer with TLS reporting, MTA-STS and DANE.",
    "moxtls",
)

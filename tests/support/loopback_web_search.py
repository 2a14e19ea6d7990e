"""The `websearch` tool, allowed to fetch pages from 127.0.0.1, where the tests' sites are, and from nowhere else."""

from backend.utils.guarded_fetch import IPAddress
from config import Settings
from tools.web_search.tool import WebSearch


def is_the_tests_own(ip: IPAddress) -> bool:
    return str(ip) == "127.0.0.1"


class LoopbackWebSearch(WebSearch):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, allowed=is_the_tests_own, ports=range(1, 65536))

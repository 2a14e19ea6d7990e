"""The main API's view of the tools API."""

import time
from dataclasses import dataclass

import aiohttp

PROBE_TIMEOUT_S = 2.0
PROBE_AGE_S = 5.0


@dataclass(frozen=True, slots=True)
class ToolsState:
    """Whether the tools API answers; `checked_at` is in `time.monotonic()` seconds."""

    up: bool
    checked_at: float

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.checked_at


class ToolClient:
    """Speaks to the tools API over HTTP; it may be down at any time."""

    def __init__(self, http: aiohttp.ClientSession, base_url: str) -> None:
        self._http = http
        self._base_url = base_url
        self._state: ToolsState | None = None

    async def state(self) -> ToolsState:
        """The state, at most `PROBE_AGE_S` old."""
        if self._state is None or self._state.age_s > PROBE_AGE_S:
            self._state = ToolsState(await self._probe(), time.monotonic())
        return self._state

    async def _probe(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            async with self._http.get(f"{self._base_url}/health", timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
